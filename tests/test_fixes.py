"""What `help` says as an edit: each fix of a wrong program makes a right one of it."""

import pytest

from nnc.compiler.elaborate import Program
from nnc.compiler.settings import Settings
from nnc.dsl.errors import SourceError
from nnc.dsl.source import Source

FIXED = [
    ("fn f(x: f32[B]) = {}(x)", "expp", ["exp"]),
    ("fn f(x: f32[B]) -> f32 = mean(x, {} = 0)", "axes", ["axis"]),
    ("fn f(x: f32[B]) = x {} 2", "**", ["^"]),
    ("fn f(x: bool[B], y: bool[B]) = x{}y", "&&", [" and "]),
    ("fn f(x: f32[B]) = {}x", "−", ["-"]),
    ("fn f(x: f32[B]) = x * {}", "1.", ["1.0", "1"]),
    ("fn f(x: f32[B]) = x * {}", "1_000", ["1000"]),
    ("fn f(x: f32[B]) = x + {}", "2x", ["2*x"]),
    ("fn f(x: {}[B]) = 2 * x", "float32", ["f32"]),
    ("{} M(x: f32[B]) -> (y: f32[B]) {{ y = 2 * x }}", "modle", ["model"]),
    ("fn f(x: f32[B]) = x * {}", ".5", ["0.5"]),
    ("fn f(x: f32[B], n: int = 1) {{\n    y = if n {} 1 then x else 2 * x\n    return y\n}}", "=", ["=="]),
    ("fn f(x: f32[B]) {{\n    {} 3 {{ x = 2 * x }}\n    return x\n}}", "repaet", ["repeat"]),
    ("fn f(x: f32[B], n: i32[B]) = x * {}", "n", ["cast(n, f32)"]),
    ("fn g(x: f32[B]) = 2 * x\nfn f(n: i32[B]) = g({})", "n", ["cast(n, f32)"]),
    ("fn f(n: i32[B]) = relu(lgamma({}))", "n", ["cast(n, f32)"]),
    ("fn f(x: f32[B], y: f32[B, 1]) = x * {}", "y", ["squeeze(y, 1)"]),
    ("fn f(x: f32[B], y: f32[B, 1]) = {} * y", "x", ["expand(x, 1)"]),
    ("fn f(x: f32[B], y: f32[B, 7, 5]) = {} * y", "x", ["expand(expand(x, 1), 2)"]),
    (
        "model M(x: f32[B, 3]) -> (y: f32[B, 1]) {{ y = x |> Dense(1) }}\n"
        "train M(x) {{\n    loss = mean(y)\n    optimizer = SGD(lr = 0.1)\n    {} = 3\n}}",
        "epoch",
        ["epochs"],
    ),
]


def _errors(text: str) -> list:
    try:
        program = Program(Source("input.nn", text), Settings())
        return [d for d in program.check()]
    except SourceError as e:
        return list(e.diagnostics)


@pytest.mark.parametrize(("text", "wrong", "right"), FIXED)
def test_a_fix_makes_the_error_go_away(text: str, wrong: str, right: list[str]) -> None:
    (found,) = _errors(text.format(wrong))
    fixed = [f.span.source.text[: f.span.start] + f.text + f.span.source.text[f.span.end :] for f in found.fixes]
    wanted = [text.format(r) for r in right]
    assert set(wanted) <= set(fixed)
    assert [_errors(t) for t in fixed] == [[]] * len(fixed)


def test_what_the_library_did_is_not_mended_in_it() -> None:
    (found,) = _errors("fn f(x: i32[B, 3], label: i32[B]) = cross_entropy(x, label)")
    assert all(not f.span.source.name.startswith("std/") for f in found.fixes)
