"""What an editor takes names for is what elaboration takes them for: in all models, and in the library itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnc.compiler.elaborate import Program, expressions
from nnc.compiler.elaborate.context import Context
from nnc.compiler.elaborate.modules import STD, Lazy
from nnc.compiler.elaborate.scope import Scope
from nnc.compiler.elaborate.values import Defined
from nnc.compiler.settings import Settings
from nnc.dsl.source import Source, Span
from nnc.dsl.tokens import scan
from nnc.runtime.data.frozen import values
from nnc.runtime.editor.changes import Refused, rename
from nnc.runtime.editor.document import Document
from nnc.runtime.editor.reading import Shift, read
from nnc.runtime.editor.symbols import Symbol

ROOT = Path(__file__).parents[2]
MODELS = sorted((ROOT / "models").glob("*.nn"))
MODEL_OF_ALL = """
fn early(x: f32[B]) { return later(x, n = 2) }
fn later(x: f32[N], n: int) -> f32[M] { M = N * n
    return concat([x, x]) }
layer Twin(x: f32[B, D], out: int) -> f32[B, out] {
    share both = Dense(out)
    y[b, k] = sum[d in 0..2](both(x)[b, k] * d) + both(x)[b, k]
    s = broadcast(0.0, [B, out])
    scan t in 0..D {
        s = s + y
        part = s * 2
        ys[t] = mean(part)
    }
    if out > 2 { mean = mean(ys) } else { mean = 0.0 }
    repeat k in 0..2 { s = s + k }
    return s + mean
}
model Net(x: f32[B, 4]) -> (y: f32[B, 3]) {
    state seen: f32 = 0
    seen := seen + 1
    y = x |> body: Twin(3)
}
optimizer Down(lr) { state v = 0
    v := v + g * t
    p := p - lr * v }
train Net(x, label: f32[B, 3]) {
    loss = mean((y - label)^2) + 0 * mean(Net.body)
    metric worst = max(abs(y)) + seen
    optimizer = Down(lr = 0.1)
    stop when loss < 0.1 and worst < B
}
test "of names" { z = Net([[1, 2, 3, 4]])
    expect size(z, 0) == 1 }
"""

Met = tuple[str, Span, Span | None, Any]  # a name, where it stands, where it got its value, the value


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[Met]:
    """What elaboration looks up."""
    found: list[Met] = []
    look_up = expressions.name_value

    def noted(cx: Context, name: str, span: Span, scope: Scope) -> Any:
        found.append((name, span, scope.where(name), scope.lookup(name)))
        return look_up(cx, name, span, scope)

    monkeypatch.setattr(expressions, "name_value", noted)
    return found


def _all_of(path: Path, text: str, folder: Path) -> None:
    program = Program(Source(str(path), text), Settings(arrays=values))
    for entry in {*program.entries} - {"init", "evaluate", "loss", "gradients", "taps"}:  # which meet the same names
        program.graph(entry)
    for k in range(len(program.found.tests)):
        program.plan_test(k)


def _wrong(path: Path, text: str, met: list[Met]) -> Iterator[str]:
    names = read(path, text).names
    for name, span, where, value in met:
        if span.source.name != str(path):
            continue
        if span.start not in names.at:
            yield f"{span}: `{name}` is nothing"
            continue
        symbol = names.at[span.start][1]
        if isinstance(value, Defined | Lazy):
            if (
                symbol.place is None
                or not value.definition.span.start <= symbol.place.start < value.definition.span.end
            ):
                yield f"{span}: `{name}` is {symbol.kind} of {symbol.place}"
        elif where is not None and symbol.kind != "metric" and not any(_holds(where, p) for p in symbol.places):
            yield f"{span}: `{name}` is of {where}, not of {symbol.places}"


def _holds(where: Span, place: Span) -> bool:
    return where.source.name == place.source.name and where.start <= place.start <= where.end


@pytest.mark.parametrize("path", [*MODELS, Path("all.nn")], ids=lambda p: p.stem)
def test_a_name_means_what_elaboration_finds(path: Path, met: list[Met]) -> None:
    text = MODEL_OF_ALL if path.name == "all.nn" else path.read_text("utf-8")
    _all_of(path, text, ROOT)
    assert len(met) > 3
    assert sorted({*_wrong(path, text, met)}) == []


@pytest.mark.parametrize("path", sorted(STD.glob("*.nn")), ids=lambda p: p.stem)
def test_every_name_of_the_library_is_known(path: Path) -> None:
    """All words but those of the language, dtypes, and what only a run could tell."""
    reading = read(path, path.read_text("utf-8"))
    assert reading.whole
    told = {o.span.start for o in reading.names.open} | {*reading.names.at}
    words = [t for t in reading.words.tokens if t.type == "NAME" and t.span.start not in told]
    assert {t.text for t in words} <= {"f32", "f64", "i32", "i64", "bool", "int", "float", "str", "fn", "T"}


def test_a_text_is_found_again_in_another() -> None:
    shift = Shift.of("abc def ghi", "abc ++ def ghi")
    assert (shift.new(0, 3), shift.new(8, 11), shift.old(11)) == ((0, 3), (11, 14), 8)
    assert shift.old(5) is None and shift.new(0, 4) == (0, 4)
    assert Shift.of("aa", "aaa").new(0, 2) == (0, 2)


def test_what_is_sound_beside_broken_text_stands_where_it_stood() -> None:
    text = "fn f(x) = 2 * x\nfn g(x) = (\n# of h\nfn h(x) = f(x)\n"
    reading = read(Path("a.nn"), text)
    assert not reading.whole and [d.name for d in reading.sound] == ["f", "h"]
    assert reading.sound[1].span.text == "fn h(x) = f(x)" and reading.sound[1].doc == "of h"
    assert reading.names.at[text.index("f(x)\n")][1].places[0].start == 3


@pytest.mark.parametrize(
    "text",
    [
        "", "fn", "fn f(", "model M(x: f32[B]) -> (y", "import \"nowhere.nn\"\nfn f(x) = x\n", 
        "fn f(x) = x\nfn f(x) = 2\n",
        
        "}}}", "fn f() {\n    {\n    y = (2\n}\n{", "\"", "test \"a\" { expect", "train N(x) { }",
        "\ufeff", "𝒯", "fn f(x, x) = x", "from \"a.nn\" import",
    ],
)  # fmt: skip
def test_any_text_can_be_read(text: str) -> None:
    reading = read(Path("a.nn"), text)
    assert reading.names.at is not None
    for k in range(len(text)):  # and any beginning of it
        assert read(Path("a.nn"), text[:k]).names.at is not None


def _renamed(text: str, place: str, new: str) -> str:
    document = Document(Path("a.nn").resolve(), text)
    found = document.symbol(text.index(place))
    assert found is not None
    (edits,) = rename(document, found[3], new, []).values()
    for e in sorted(edits, key=lambda e: -e.start):
        text = text[: e.start] + e.text + text[e.end :]
    return text


def test_a_name_in_a_branch_that_is_not_taken_is_changed_too() -> None:
    text = _renamed(MODEL_OF_ALL, "mean = mean(ys)", "m")
    assert "if out > 2 { m = mean(ys) } else { m = 0.0 }" in text and "return s + m" in text
    text = _renamed(MODEL_OF_ALL, "body: Twin", "head")
    assert "x |> head: Twin(3)" in text and "mean(Net.head)" in text
    text = _renamed(MODEL_OF_ALL, "D], out", "Wide")
    assert "f32[B, Wide], out" in text and "scan t in 0..Wide" in text


@pytest.mark.parametrize(
    ("text", "place", "new", "why"),
    [
        ("fn f(x) { y = x\n return y + z }\nconst z = 1\n", "y = x", "z", "means something else"),
        ("fn g(f: fn) = f(a = 1)\nfn h(a) = a\nconst b = g(h)\n", "a) = a", "c", "only a run could tell"),
        ("fn f(x) = x\nfn g(x) = x\n", "f(x)", "g", "twice"),
        ("fn f(x) = relu(x)\n", "relu", "g", "of the standard library"),
        ("fn f(x) = exp(x)\n", "exp", "g", "the language's own"),
    ],
)
def test_a_name_whose_change_would_change_the_meaning_stays(text: str, place: str, new: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        _renamed(text, place, new)


def test_the_tokens_of_a_text_are_all_its_words() -> None:
    source = Source("a.nn", "fn f(x) = (2\nmodel\n")
    reading = read(Path("a.nn"), source.text)
    assert [t.text for t in reading.words.tokens] == [t.text for t in scan(source)[0]]


def test_a_symbol_is_where_it_was_last_assigned() -> None:
    symbol = Symbol("h", "value", places=[Span(Source("a", "h h"), 0, 1), Span(Source("a", "h h"), 2, 3)])
    assert [symbol.before(k).start for k in (0, 1, 2, 9)] == [0, 0, 2, 2]
