"""Equal turns of `repeat` as one scan.

Turn 1 is written out: behind it the values that turns hand on have their types, and it has shown how many of each layer
a turn makes. The next turn is elaborated once more, for all that follow. Its variables are stacks (`types.stacks`), of
which the body reads the part of its turn. Turns are equal where the names that a turn assigns are behind it what they
were before: tensors of the same types, and otherwise the same values; for all else that elaboration looks at is.

Where they are not, or where somebody asks for one of them (a parameter by its path, some of a group), `NotRolled` is
raised, and the program begins anew with all turns written out. So is whatever is wrong with a program: errors are told
of turns that are written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...dsl import ast
from ...dsl.tree import walk
from ..graph.nodes import Builder
from ..graph.ops import OPS
from ..types.stacks import is_stack
from .bodies import Body, index_symbol, inside
from .context import Context
from .frames import Frame, NotRolled, Turn, add_input
from .scans import assigned
from .scope import MISSING, Instance, Scope
from .stacked import finish
from .values import Tensor, is_static

LEAST = 16  # turns that are worth a scan


class Counts:
    """How many layers an instance has made, and how often each site has drawn."""

    def __init__(self, cx: Context, instance: Instance | None):
        self.layers = dict(instance.counts) if instance is not None and cx.rolls else {}
        self.draws = dict(cx.draws) if cx.rolls else {}


def roll(cx: Context, s: ast.Repeat, scope: Scope, turns: int, before: Counts) -> bool:
    """Run the last `turns` turns of a `repeat` as a scan, where that is worth it; says whether it did. `before` was
    counted before the turn that was run."""
    instance = scope.instance
    if not cx.rolls or cx.frames or turns < LEAST or instance is None or instance.optimizer:
        return False
    strides = _grown(instance.counts, before.layers)
    if not strides or any(isinstance(n, ast.Name) and n.id == s.index for n in walk(s)):
        return False
    cx.program.has_rolled = True
    after = Counts(cx, instance)
    turn = Turn(_grown(cx.draws, before.draws))
    frame = Frame("", index_symbol(cx, "turn"), turns, Builder("body", OPS), {}, turn=turn)
    instance.turns, instance.strides = turns, strides
    try:
        _run(cx, s, scope, frame)
    finally:
        instance.turns, instance.strides = 1, {}
    draws = {site: n for site, n in _grown(cx.draws, after.draws).items() if not is_stack(site)}
    if _grown(instance.counts, after.layers) != strides or not draws.items() <= turn.draws.items():
        raise NotRolled(s.span)
    for counts, grown in ((instance.counts, strides), (cx.draws, draws)):
        for name, n in grown.items():
            counts[name] += n * (turns - 1)
    return True


def _grown(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: n - before.get(name, 0) for name, n in now.items() if n != before.get(name, 0)}


def _run(cx: Context, s: ast.Repeat, scope: Scope, frame: Frame) -> None:
    """One turn for all, and what it hands on."""
    names = [name for name, _ in assigned(s.body, "") if scope.local(name)]
    given = {name: value for name in names if isinstance(value := scope.lookup(name), Tensor)}
    inner = scope.child()
    with inside(cx, frame):
        for name, value in given.items():
            inner.bind(name, Tensor(add_input(frame.builder, name, value.type, s.span), frame.builder), s.span)
        if cx.run(s.body, inner, last=False) is not None:
            raise NotRolled(s.span)
        if not all(_is_handed_on(name, value, given, scope) for name, value in inner.names.items()):
            raise NotRolled(s.span)
        carried = {name: cx.here(inner.names[name], s.span) for name in given}
    for name, value in finish(cx, s.span, given, Body(frame, carried)).items():
        scope.bind(name, value, s.span)


def _is_handed_on(name: str, value: Any, given: Mapping[str, Tensor], scope: Scope) -> bool:
    """Whether the next turn finds under a name what this one found, as far as elaboration sees."""
    if isinstance(value, Tensor):
        return name in given and value.type == given[name].type
    before = scope.lookup(name) if scope.local(name) else MISSING
    return value is before or (is_static(value) and type(value) is type(before) and bool(value == before))
