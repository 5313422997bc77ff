"""`scan t in 0..T { }`: a loop at run time, as one operator with a graph of its own.

The body is elaborated once, into a graph whose inputs are the carried values and whatever it mentions from around it.
Carried is what has a value before the scan and is assigned in it. A carried number may become a tensor in the first
turn (`s = 0`, then `s = s + x[:, t]`): then the body is elaborated again with a carried value of that type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.errors import error
from ...dsl.source import Span
from ..graph.nodes import Builder, ancestors, mentions
from ..graph.ops import OPS
from ..types.sizes import Dim, symbol, symbols
from ..types.tensors import TensorType
from .bodies import Body, emit, index_symbol, inside
from .context import Context
from .faults import Poisoned
from .frames import Frame, add_input
from .notation import assign
from .scope import Instance, Scope
from .shapes import at_least, broadcast_to, refine, same_size, tensor
from .values import POISON, Results, Tensor, Value, is_static, kind

ATTEMPTS = 4  # to find the types of the carried values


def scan(cx: Context, s: ast.Scan, scope: Scope) -> None:
    """Run a scan: afterwards the carried names mean their last values, the collected ones all turns' values."""
    start, count = _range(cx, s, scope)
    given: dict[str, Any] = {}
    for name, at in assigned(s.body, s.index):
        if name != s.index and scope.local(name):
            given[name] = scope.lookup(name)
            if given[name] is not POISON and not _carries(given[name]):
                where = scope.where(name)
                first = (Label(where, "its value before the scan"),) if where is not None else ()
                raise error(
                    "E0307",
                    f"`{name}` cannot be carried from turn to turn: it is {kind(given[name])}",
                    at,
                    "",
                    *first,
                    help="give what is assigned inside a name of its own",
                )
    before = _Snapshot(cx, scope.instance)
    for _ in range(ATTEMPTS):
        body = _elaborated(cx, s, scope, given, start, count)
        fitted = {name: _fitted(cx, s, scope, name, given[name], body.carried[name]) for name in given}
        if all(fitted[name] is given[name] for name in given):
            break
        before.restore(cx, scope.instance)
        given = fitted
    else:
        raise error("E0303", "the sizes of the values that this scan carries grow from turn to turn", s.span)
    both = next((name for name in body.frame.collected if name in given), None)
    if both is not None:
        raise error(
            "E0202",
            f"`{both}` is carried by the scan, so it cannot be collected as well",
            body.frame.collected[both][2],
        )
    for name, value in emit(cx, s.span, given, body).items():
        scope.bind(name, value, s.span if name in given else body.frame.collected[name][2])


def _range(cx: Context, s: ast.Scan, scope: Scope) -> tuple[Dim, Dim]:
    """Where the index begins, and how many turns there are."""
    if not isinstance(s.range, ast.Range):
        raise error("E0307", f"`scan` needs a range, such as `{s.index} in 0..n`", s.range.span)
    start = cx.integer(s.range.start, scope, "the start of `scan`")
    stop = cx.integer(s.range.stop, scope, "the end of `scan`")
    message = f"the scan from {start} to {stop} must not end before it begins"
    if not at_least(cx, stop, start, message, s.range.span):
        raise error("E0301", message, s.range.span)
    turn = next((f.name for f in cx.frames if f.index in symbols(stop - start)), None)
    if turn is not None:
        raise error("E0305", f"how often a scan runs cannot depend on `{turn}` of the scan around it", s.range.span)
    return start, stop - start


def _carries(value: Value) -> bool:
    return (
        isinstance(value, Tensor)
        or (is_static(value) and not isinstance(value, str))
        or (isinstance(value, Results) and len(value.items) == 1)
    )


def assigned(body: Sequence[ast.Statement], index: str, collected: bool = False) -> Iterator[tuple[str, Span]]:
    """The names that statements give a value, or those they collect."""
    for s in body:
        match s:
            case ast.Assign(targets=targets):
                for t in targets:
                    if collected == any(isinstance(i, ast.Name) and i.id == index for i in t.indices or ()):
                        yield t.name, t.span
            case ast.If(then=a, otherwise=b) | ast.When(training=a, otherwise=b):
                yield from assigned((*a, *b), index, collected)
            case ast.Repeat(body=inner):
                yield from assigned(inner, index, collected)
            case ast.Scan(body=inner, index=own) if not collected:
                yield from (x for x in assigned(inner, own) if x[0] != own)
            case ast.Variable(name=name) | ast.Share(name=name) if not collected:
                yield name, s.span


class _Snapshot:
    """What elaborating a body leaves behind outside of its graph, to begin once more."""

    def __init__(self, cx: Context, instance: Instance | None):
        self.draws, self.guards, self.facts = dict(cx.draws), list(cx.root.guards), cx.facts
        self.parts, self.called = list(cx.parts), len(cx.called)
        self.instance = None if instance is None else _copied(instance)

    def restore(self, cx: Context, instance: Instance | None) -> None:
        cx.draws, cx.root.guards, cx.facts = dict(self.draws), list(self.guards), self.facts
        cx.parts = list(self.parts)
        del cx.called[self.called :]
        if instance is not None and self.instance is not None:
            fresh = _copied(self.instance)
            instance.counts, instance.labels = fresh.counts, fresh.labels
            instance.declared, instance.variables = fresh.declared, fresh.variables


def _copied(i: Instance) -> Instance:
    return replace(
        i, counts=dict(i.counts), labels=dict(i.labels), declared=dict(i.declared), variables=dict(i.variables)
    )


def _elaborated(cx: Context, s: ast.Scan, scope: Scope, given: dict[str, Any], start: Dim, count: Dim) -> Body:
    frame = Frame(
        s.index, index_symbol(cx, s.index), count, Builder("body", OPS), dict(assigned(s.body, s.index, True))
    )
    inner = scope.child()
    inner.bind(s.index, symbol(frame.index) + start, s.span)
    for name, value in given.items():
        bound = value
        if isinstance(value, Tensor):
            bound = Tensor(add_input(frame.builder, name, value.type, s.span), frame.builder)
        inner.bind(name, bound, scope.where(name))
    with inside(cx, frame):
        if cx.run(s.body, inner, last=False) is not None:
            raise error(
                "E0307",
                "`return` cannot stand inside a scan",
                s.span,
                help="assign a name before the scan and in it, and return that behind the scan",
            )
        carried = {name: inner.names[name] for name in given}
        for name, value in carried.items():
            if value is POISON or given[name] is POISON:
                raise Poisoned
            if not _carries(value):
                raise error(
                    "E0307",
                    f"`{name}` is carried from turn to turn, so it cannot become {kind(value)}",
                    inner.spans.get(name),
                )
            if not isinstance(given[name], Tensor) or not isinstance(value, Tensor):
                wanted = given[name].dtype if isinstance(given[name], Tensor) else None
                carried[name] = tensor(cx, value, inner.spans.get(name), wanted)
            else:
                carried[name] = _refined(cx, cx.here(value, inner.spans.get(name)), given[name], name, s.span)
            _steady(frame, carried[name], "carried", inner.spans.get(name))
        until = None
        if s.until is not None:
            until = tensor(cx, cx.evaluate(s.until, inner), s.until.span)
            if until.type != TensorType("bool"):
                raise error(
                    "E0307",
                    f"`until` needs a single bool, not {until.type}",
                    s.until.span,
                    help="`all(..)` and `any(..)` make one of many",
                )
    for name, span in assigned(s.body, s.index):
        if name not in given:
            scope.inside[name] = span
    scope.names |= {name: value for name, value in inner.names.items() if value is POISON}
    return Body(frame, carried, until)


def _refined(cx: Context, new: Tensor, old: Tensor, name: str, span: Span) -> Tensor:
    """A new value in the sizes of the old one, where run time may find them equal."""
    if new.type == old.type or new.dtype != old.dtype or new.rank != old.rank:
        return new
    what = f"`{name}` is carried from turn to turn as {old.type}, and becomes {new.type}"
    shape = [m if m == 1 else same_size(cx, m, n, what, span) for m, n in zip(old.shape, new.shape, strict=True)]
    return new if None in shape or 1 in shape else refine(cx, new, old.shape, span)


def _fitted(cx: Context, s: ast.Scan, scope: Scope, name: str, old: Any, new: Tensor) -> Value:
    """What a carried value must begin as, to be what the turn before it leaves: itself, or broadcast to that."""
    if isinstance(old, Tensor) and old.type == new.type:
        return old
    span = scope.where(name)
    first = tensor(cx, old, span, None if isinstance(old, Tensor | Results) else new.dtype)
    stretches = first.rank == 0 or (
        first.rank == new.rank and all(m in (1, n) for m, n in zip(first.shape, new.shape, strict=True))
    )
    if first.dtype != new.dtype or not stretches:
        labels = (Label(span, f"{first.type} before the scan"),) if span is not None else ()
        changed = next(at for n, at in assigned(s.body, s.index) if n == name)
        raise error(
            "E0301",
            f"`{name}` is carried from turn to turn, so its type must stay: {first.type} is not {new.type}",
            changed,
            f"{new.type} after a turn",
            *labels,
        )
    return broadcast_to(cx, first, new.shape, span, () if first.rank == 0 else None)


def collects(cx: Context, s: ast.Assign, scope: Scope) -> bool:
    """`ys[b, t, k] = e` inside `scan t`: keep the turn's value; afterwards `ys` has an axis for the turns. With `t`
    alone on the left, `e` is any value, and its axes stand behind that of the turns. Says whether it was such."""
    (target,) = s.targets
    indices = target.indices or ()
    turns = {f.name: f for f in cx.frames if isinstance(scope.lookup(f.name), int | type(symbol("t")))}
    named = [k for k, i in enumerate(indices) if isinstance(i, ast.Name) and i.id in turns]
    if not named:
        return False
    frame = turns[indices[named[0]].id]  # type: ignore[union-attr]
    if len(named) > 1 or frame is not cx.frames[-1]:
        raise error(
            "E0309",
            f"a value is collected by the innermost scan, so `{cx.frames[-1].name}` alone of the "
            "scans' indices can stand on the left",
            target.span,
            help="collect what the inner scan collected: `row[j] = ..` in it, `all[i] = row` behind it",
        )
    if target.name in frame.collected:
        raise error(
            "E0202",
            f"`{target.name}` is collected twice in one turn",
            target.span,
            "",
            Label(frame.collected[target.name][2], "first here"),
        )
    axis = named[0]
    rest = (*indices[:axis], *indices[axis + 1 :])
    if rest:
        value = assign(cx, replace(s, targets=(replace(target, indices=rest),)), scope)
        axis = axis + sum(cx_rank - 1 for cx_rank in _rests(indices[:axis], value.rank, len(rest)))
    else:
        value = tensor(cx, cx.evaluate(s.value, scope), s.value.span)
    kept = cx.here(value, s.span)
    _steady(frame, kept, "collected", s.value.span)
    frame.collected[target.name] = (kept, axis, s.span)
    return True


def _steady(frame: Frame, value: Tensor, what: str, span: Span | None) -> None:
    """What leaves a turn has a size that does not depend on it."""
    if mentions(value.type, frame.index):
        raise error(
            "E0305",
            f"what is {what} has the same size in each turn, but this is {value.type}",
            span,
            help=f"take all and leave out what lies beyond `{frame.name}`: `where(iota(n) < {frame.name}, ..)`",
        )


def _rests(before: Sequence[Any], rank: int, count: int) -> Iterator[int]:
    """How many axes each `*s` left of the index stands for, where one does."""
    return (rank - (count - 1) for i in before if isinstance(i, ast.Rest))


def check_grad(cx: Context, y: Tensor, xs: Sequence[Tensor], span: Span | None) -> None:
    """Inside a scan a gradient with respect to a value from around it is that along the body. Refuse it where y
    depends on that value in another way, through something that was computed around the scan as well."""
    for x in xs:
        levels = [cx.root, *(f.builder for f in cx.frames)]
        if x.builder is cx.builder or x.builder not in levels:
            continue
        reached = {y.node}
        for level in range(len(levels) - 1, levels.index(x.builder), -1):
            b, frame = levels[level], cx.frames[level - 1]
            seen = ancestors(b.nodes, reached)
            reached = {around for around, i in frame.captured.items() if i in seen}
        if any(x.node in ancestors(x.builder.nodes, [n]) for n in reached - {x.node}):
            raise error(
                "E0401",
                "inside a scan, the gradient with respect to a value from around it cannot follow "
                "what was computed around it",
                span,
                help="compute it inside the scan, or take the gradient behind it",
            )
