"""Sizes that only run time knows: their arithmetic, and what is asked of them where the compiler cannot decide."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc
from nnc.compiler.graph.ops.contraction import is_gathered
from nnc.compiler.session import Session
from nnc.compiler.settings import Settings
from nnc.compiler.types.facts import equal, learned
from nnc.compiler.types.sizes import Dim, divide, highest, parse_size, substitute, symbols
from nnc.dsl.source import Source


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("H // 2", "H // 2"), ("2 * (H // 2)", "2*(H // 2)"), ("(H + 1) // 2", "(H + 1) // 2"),
        ("(H - 1) // 2 + 1", "(H + 1) // 2"), ("(4*B + 7) // 4", "B + 1"), ("5*B // 2", "2*B + B // 2"),
        ("H // 2 // 2", "H // 4"), ("2 * (2 * (H // 2) // 2)", "2*(H // 2)"), ("(2*W) // 4", "W // 2"),
        ("(6*H + 5) % 4", "2*(H % 2) + 1"), ("H % 2 * B", "B*(H % 2)"), ("A - H // 2", "A - H // 2"),
        ("-(H // 2)", "-(H // 2)"), ("(-H) // 2", "(-H) // 2"), ("H // 2 % 3", "(H // 2) % 3"),
        ("A * H // 3", "A*H // 3"), ("A * (H // 3)", "A*(H // 3)"), ("(A + H) // B", "(A + H) // B"),
    ],
)  # fmt: skip
def test_a_size_is_shown_in_lowest_terms(written: str, shown: str) -> None:
    assert str(parse_size(written)) == shown


def _random(rng: random.Random, depth: int) -> str:
    match rng.randrange(8) if depth else rng.randrange(2):
        case 0:
            return rng.choice("ABH")
        case 1:
            return str(rng.randrange(1, 7))
        case 2 | 3:
            return f"({_random(rng, depth - 1)} {rng.choice('+-')} {_random(rng, depth - 1)})"
        case 4:
            return f"({_random(rng, depth - 1)} * {rng.randrange(1, 5)})"
        case 5:
            return f"({_random(rng, depth - 1)} % {rng.randrange(1, 7)})"
    return f"({_random(rng, depth - 1)} // {rng.randrange(1, 7)})"


def test_what_is_highest_is_enough_for_each_turn() -> None:
    rng = random.Random(4)
    parts = ("A", "B", "H", "H", "(A + H) // 3", "(2 * H + 5) % 4", "H // 2", "(B + 7) // (H + 2)", "3")
    signed = ("(A - H) // 16", "(B - H + 1) // 2", "(H - B) // 3")
    for _ in range(3000):
        text = " ".join(f"{rng.choice('+++-')} {' * '.join(rng.sample(parts, rng.randint(1, 3)))}" for _ in range(4))
        alone = "".join(f" {sign} {rng.choice(signed)}" for sign in rng.sample(("+", "-", "- 2 *"), 2))
        size = parse_size(f"0 {text}{alone}")
        values = {name: rng.randrange(20) for name in "AB"}
        most = highest(size, "H", parse_size("A + 1"))
        assert "H" not in symbols(most)
        turns = [substitute(size, {**values, "H": h}) for h in range(values["A"] + 2)]
        assert max(turns) <= max(0, substitute(most, values)), size


def test_sizes_are_what_they_say() -> None:
    rng = random.Random(3)
    for _ in range(3000):
        text = _random(rng, 5)
        size = parse_size(text)
        values = {name: rng.randrange(20) for name in "ABH"}
        assert substitute(size, values) == eval(text, dict(values)), text
        assert parse_size(str(size)) == size, text
        quotient, remainder = divide(size, 6)
        assert substitute(quotient * 6 + remainder, values) == substitute(size, values), text


# --- what guards say -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        (["H % 4 == 0"], "2 * (2 * (H // 2 // 2)) == H"),
        (["H % 4 == 0"], "H % 2 == 0"),
        (["H == 2 * (H // 2)", "H // 2 == 2 * (H // 4)"], "4 * (H // 4) == H"),
        (["(H + 1) % 3 == 0"], "3 * ((H + 1) // 3) == H + 1"),
        (["H % 6 == 1"], "H % 3 == 1"),
        (["A == B", "B == H"], "A * A == H * B"),
        (["A == 2 * B", "A % 4 == 0"], "2 * (B // 2) == B"),
    ],
)
def test_what_a_guard_says_decides_other_equalities(told: list[str], asked: str) -> None:
    def sides(text: str) -> tuple[Dim, Dim]:
        left, right = map(parse_size, text.split("=="))
        return left, right

    facts: Any = {}
    assert not equal(*sides(asked), facts)
    for text in told:
        left, right = sides(text)
        facts = learned(facts, left - right)
    assert equal(*sides(asked), facts)


def test_what_guards_say_is_never_too_much() -> None:
    """Facts hold for all sizes for which the guards hold, and so do the equalities that they decide."""
    rng = random.Random(5)
    for _ in range(300):
        guards = [parse_size(_random(rng, 3)) - parse_size(_random(rng, 2)) for _ in range(3)]
        facts: Any = {}
        for g in guards:
            facts = learned(facts, g)
        asked = [(parse_size(_random(rng, 3)), parse_size(_random(rng, 3))) for _ in range(5)]
        for a in range(7):
            for b in range(7):
                for h in range(7):
                    values = {"A": a, "B": b, "H": h}
                    if any(substitute(g, values) for g in guards):
                        continue
                    assert all(substitute(v, values) == values[k] for k, v in facts.items())
                    assert all(substitute(x, values) == substitute(y, values) for x, y in asked if equal(x, y, facts))


# --- programs --------------------------------------------------------------------------------------------------------

R = np.random.default_rng(7)


def f32(*shape: int) -> np.ndarray:
    return R.standard_normal(shape).astype(np.float32)


def _correlated(x: np.ndarray, w: np.ndarray, stride: int, pad: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = ((n - k) // stride + 1 for n, k in zip(x.shape[2:], w.shape[2:], strict=True))
    y = np.zeros((x.shape[0], w.shape[0], rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            seen = x[:, :, i * stride : i * stride + w.shape[2], j * stride : j * stride + w.shape[3]]
            y[:, :, i, j] = np.tensordot(seen, w, ([1, 2, 3], [1, 2, 3]))
    return y


def _ceiled(x: np.ndarray, window: int, stride: int) -> np.ndarray:
    """Average pooling whose last windows may stick out."""
    counts = [-(-(n - window) // stride) + 1 for n in x.shape[2:]]
    counts = [c - ((c - 1) * stride >= n) for c, n in zip(counts, x.shape[2:], strict=True)]
    at = [[slice(k * stride, k * stride + window) for k in range(c)] for c in counts]
    return np.stack([np.stack([x[:, :, i, j].mean((2, 3)) for j in at[1]], -1) for i in at[0]], -2)


A23, B23, C64 = f32(2, 3), f32(2, 3), f32(6, 4)
IMAGE, FILTERS = f32(2, 3, 6, 7), f32(4, 3, 3, 2)
# name -> program, arguments, what is right, arguments that do not fit, and what the refusal says (with its place)
PROGRAMS: dict[str, tuple[str, tuple[Any, ...], Any, tuple[Any, ...], str]] = {
    "concat": (
        "fn f(a: f32[A, C], b: f32[B, D]) = concat([a, b])",
        (A23, B23), np.concatenate([A23, B23]),
        (A23, f32(2, 4)),
        r"f32\[A, C\] and f32\[B, D\], joined along axis 0: C must equal D \(.*1:36\): C is 3, D is 4",
    ),
    "stack": (
        "fn f(a: f32[A, C], b: f32[B, C]) = stack([a, b], axis = 1)",
        (A23, B23), np.stack([A23, B23], 1), (A23, f32(1, 3)), "A must equal B",
    ),
    "a list": (
        "fn f(a: f32[A], b: f32[B]) = [a, b]",
        (A23[0], B23[0]), np.stack([A23[0], B23[0]]), (A23[0], f32(4)), "A must equal B",
    ),
    "where": (
        "fn f(c: bool[A], x: f32[B], y: f32[C]) = where(c, x, y)",
        (A23[0] > 0, A23[1], B23[0]), np.where(A23[0] > 0, A23[1], B23[0]),
        (A23[0] > 0, A23[1], f32(2)), "B must equal C",
    ),
    "broadcast": (
        "fn f(x: f32[A], y: f32[M]) = broadcast(x, [2, M]) * y[0]",
        (A23[0], B23[0]), np.broadcast_to(A23[0], (2, 3)) * B23[0, 0], (A23[0], f32(4)), "A must equal M",
    ),
    "squeeze says that a size is 1": (
        "fn f(x: f32[A, M], y: f32[A, N]) = expand(squeeze(x, 1), 1) + y",
        (f32(2, 1) * 0, A23), A23, (B23, A23), "`squeeze` of axis 1 of f32\\[A, M\\]: M must equal 1",
    ),
    "scatter": (
        "fn f(x: f32[A], i: i32[B]) = scatter(x, i, 3)",
        (A23[0], np.int32([2, 0, 1])), A23[0][[1, 2, 0]], (A23[0], np.int32([0, 1])), "A must equal B",
    ),
    "index notation": (
        "fn f(a: f32[A, K], b: f32[L, B]) {\n y[i, j] = sum[k](a[i, k] * b[k, j])\n return y\n}",
        (A23, B23.T), A23 @ B23.T, (A23, B23), "how far the index `k` runs: K must equal L",
    ),
    "index notation under a window turned around": (
        "fn f(x: f32[A, N], w: f32[K]) {\n y[a, i] = sum[u](x[a, i - u + 1] * w[u])\n return y\n}",
        (A23, A23[:, 0]), A23[:, 1:] * A23[0, 0] + A23[:, :-1] * A23[1, 0], (A23, f32(3)), "no value that stays inside",
    ),
    "index notation from the end": (
        "fn f(x: f32[A, N], w: f32[K]) {\n y[a, i in 0..K] = x[a, N - 1 - i] * w[i]\n return y\n}",
        (A23, A23[:, 0]), A23[:, 2:0:-1] * A23[:, 0], (A23, f32(4)), r"runs from -K \+ N to N - 1, which must be",
    ),
    "matrix product": (
        "fn f(a: f32[A, K], b: f32[L, B]) = a @ b", (A23, B23.T), A23 @ B23.T, (A23, B23), "K must equal L",
    ),
    "reshape": (
        "fn f(x: f32[A, B, C]) = reshape(x, [A, C // 2, 2, B])",
        (FILTERS[0],), FILTERS[0].reshape(3, 1, 2, 3), (IMAGE[0],), "C must equal 2\\*\\(C // 2\\)",
    ),
    "reshape with -1": (
        "fn f(x: f32[A, B], y: f32[M]) = reshape(x, [M, -1]) + y[0] * 0",
        (C64, f32(3)), C64.reshape(3, -1), (C64, f32(5)), "M must divide A\\*B .*: A\\*B % M is 4",
    ),
    "groups": (
        "fn f(x: f32[B, C, H, W]) = reshape(reshape(x, [B, 2, C // 2, -1]) * 2, shape(x))",
        (FILTERS[:, :2],), FILTERS[:, :2] * 2, (f32(2, 3, 5, 1),), "2\\*\\(C // 2\\) must divide C\\*H\\*W",
    ),
    "split": (
        "fn f(x: f32[N]) = split(x, 3)[1]", (C64[:, 0],), C64[2:4, 0], (f32(7),), "N must divide into 3 .*: N % 3 is 1",
    ),
    "a require is a fact": (
        "fn f(x: f32[H, A], y: f32[A]) {\n"
        ' require(H % 4 == 0 and A > 2, "no")\n'
        " return concat([x[0:2 * (2 * (H // 2) // 2)] + y, x], axis = 1)\n}",
        (C64[:4], f32(4) * 0), np.concatenate([C64[:4], C64[:4]], 1), (C64, f32(4)), r"no \(.*2:2\): H % 4 is 2",
    ),
    "or": (
        'fn f(x: f32[H, W]) {\n require(H == 1 or not (W < 3 or W > 4), "no")\n return x * 2\n}',
        (A23,), A23 * 2, (f32(2, 5),), "no .*: H is 2, W is 5",
    ),
    "correlate": (
        "fn f(x: f32[B, C, H, W], w: f32[K, D, U, V]) = slide(x, w, 2, 1, 1, 1, false)",
        (IMAGE, FILTERS), _correlated(IMAGE, FILTERS, 2, 1), (IMAGE, f32(4, 2, 3, 2)), "as many channels",
    ),
    "correlate without filters": (
        "fn f(x: f32[B, C, H, W], w: f32[K, C, U, V]) = slide(x, w, 1, 0, 1, 1, false)",
        (IMAGE, FILTERS[:0]), np.zeros((2, 0, 4, 6), np.float32), (IMAGE, f32(1, 3, 7, 1)), "larger than its input",
    ),
    "pooling with ceil": (
        "fn f(x: f32[B, C, H, W]) = avg_pool(x, 3, 2, ceil = true)",
        (IMAGE,), _ceiled(IMAGE, 3, 2), (f32(1, 1, 2, 2),), "larger than its input",
    ),
    "a multiple in a signature": (
        "fn f(x: f32[A]) = g(x) + cast(x[0] * 0, i32)\nfn g(x: f32[2 * H + 1]) = iota(H)",
        (f32(7),), np.int32([0, 1, 2]), (f32(6),),
        r"`2 \* H \+ 1`, axis 0 of `x` of `g`: A must equal 2\*\(\(A \+ 1\) // 2\) - 1 .*: A is 6, .* is 5",
    ),
    "a name from elsewhere": (
        "fn f(x: f32[A, B]) = g(x)\nfn g(x: f32[N, N // 2]) = x * 2",
        (f32(5, 2) * 0,), np.zeros((5, 2), np.float32), (f32(5, 3),),
        "`N // 2`, axis 1 of `x` of `g`: B must equal A // 2",
    ),
    "of an entry": (
        "fn f(x: f32[4*H, H + 1]) = broadcast(1.0, [H])",
        (f32(8, 3),), np.ones(2, np.float32), (f32(6, 3),), "axis 0 of `x` of f is 6, but must be 4\\*H",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_cannot_be_decided_is_asked_at_run_time(name: str) -> None:
    source, given, expected, wrong, said = PROGRAMS[name]
    f = nnc.function(source)
    np.testing.assert_allclose(f(*given), expected, atol=1e-5)
    with pytest.raises(nnc.ArgumentError, match=said) as caught:
        f(*wrong)
    assert "E0606" in str(caught.value)


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (5, 3, 1)])
def test_what_scatters_is_gathered_at_any_size(kernel: int, stride: int, pad: int, tmp_path: Path) -> None:
    """The adjoint of a window, in its phases: as where sizes are known, and not as slow as writing term by term."""
    file = tmp_path / "up.nn"
    layer = f"ConvTranspose(3, {kernel}, stride = {stride}, pad = {pad})"
    file.write_text(f"model Up(x: f32[B, 2, H, 2 * W]) {{\n    return x |> {layer}\n}}\n", "utf-8")
    free, fixed = nnc.compile(file), nnc.compile(file, sizes={"H": 5, "W": 3})
    x = f32(2, 2, 5, 6)
    np.testing.assert_allclose(free.predict(x), fixed.predict(x), rtol=1e-5, atol=1e-6)
    graph = Session(Source("up.nn", file.read_text("utf-8")), Settings()).stages("predict").optimized
    assert all(is_gathered(n) for n in graph if n.op == "contract")
