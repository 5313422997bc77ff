"""Marks: which results of an entry are complete on its way (`lowering/marks`)."""

from __future__ import annotations

import pytest

from nnc.compiler.loops.ir import places
from nnc.compiler.loops.parse import parse_loops
from nnc.compiler.loops.text import print_loops
from nnc.compiler.lowering.marks import GROUPS, LEAST
from nnc.compiler.lowering.memory import output_slot
from nnc.compiler.session import Session
from nnc.dsl.source import Source

DEEP = """
model Net(x: f32[B, 64]) -> (y: f32[B, 10]) {
    h = x
    %s
    y = h |> Dense(10)
}
train Net(x, label: i32[B]) { loss = mean(cross_entropy(y, label))\n optimizer = SGD(lr = 0.1) }
"""
LAYERS = "\n".join("h = h |> Dense(160) |> relu" for _ in range(18))
FEW = "h = h |> Dense(160) |> relu"
FOLDED = "h = reshape(x, [-1, 1, 8, 8]) |> Conv(8, 3) |> relu |> flatten |> Dense(96) |> relu"


def lowered(text: str):
    session = Session(Source("net.nn", text))
    return session, session.stages("train.0").lowered


@pytest.mark.parametrize(
    ("layers", "count"),
    [(FEW, 1), (LAYERS, 1), (FOLDED, 2)],
    ids=["few", "more steps than one function has", "another entry for many examples"],
)
def test_each_mark_comes_behind_all_that_writes_what_it_tells_of(layers: str, count: int) -> None:
    session, made = lowered(DEEP % layers)
    entries = [e for e in made.module.entries if e.marks]
    assert len(entries) == count
    results = {s.name for s in made.entry.slots if s.role == "output"}
    assert {output_slot(n) for group in made.marks for n in group} == results
    for entry in entries:
        assert entry.slots[-1].role == "mark" and len(entry.marks) == len(made.marks)
        assert list(entry.marks) == sorted(entry.marks) and entry.marks[-1] <= len(entry.steps)
        for mark, group in zip(entry.marks, made.marks, strict=True):
            slots = {output_slot(name) for name in group}
            later = {p.name for p in places(entry.steps[mark:]) if p.base == "slot"}
            assert not slots & later
    assert session.entry("train.0").signature.marks == made.marks


def test_groups_are_few_and_large_and_the_first_come_early() -> None:
    _, made = lowered(DEEP % LAYERS)
    size = {s.name: s.type.nbytes for s in made.entry.slots}
    sizes = [sum(size[output_slot(n)] for n in group) for group in made.marks]
    assert 3 < len(sizes) <= GROUPS + 1 and all(n >= LEAST for n in sizes[:-1])
    assert made.entry.marks[0] < 0.75 * len(made.entry.steps)


def test_the_text_has_them() -> None:
    _, made = lowered(DEEP % FEW)
    text = print_loops(made.module)
    assert f" marks ({', '.join(map(str, made.entry.marks))})" in text
    assert parse_loops(text) == made.module


def test_who_waits_for_nothing_has_none() -> None:
    session = Session(Source("net.nn", DEEP % FEW))
    for entry in ("train", "predict", "train.1"):
        assert not any(e.marks for e in session.stages(entry).lowered.module.entries), entry


def test_native_code_stores_them() -> None:
    session, made = lowered(DEEP % LAYERS)
    text = session.llvm(session.stages("train.0"))
    for k in range(1, len(made.marks) + 1):
        assert f"store atomic i64 {k}, ptr" in text
