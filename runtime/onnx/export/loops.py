"""Loops at run time: a `scan` is a `Loop`, whose turn is a graph of its own and sees what is around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ....compiler.graph.nodes import Node
from ....compiler.types.sizes import Dim
from ....compiler.types.tensors import TupleType
from .scalars import apply
from .values import Body, Scope, Value
from .views import turned
from .walk import Rule, Walk

Type = tuple[str, Sequence[Dim]]
# of a turn, its index and what is carried: what is carried on, what is collected, and whether to stop
Turn = Callable[[Scope, Value, list[Value]], "tuple[list[Value], list[Value], Value | None]"]


def loop(
    s: Scope, count: Dim, begin: Sequence[Value], turn: Turn, collected: Sequence[Type]
) -> tuple[list[Value], list[Value]]:
    """What is carried in the end, and what `count` turns collected, one after the other; where one stops, fewer."""
    body = Body(s.opset, s)
    index, go = (Value(body.fresh(stem), d, ()) for stem, d in (("turn", "i64"), ("go", "bool")))
    carried = [Value(body.fresh("carried"), v.dtype, v.shape) for v in begin]
    body.given = [index, go, *carried]
    after, parts, stop = turn(body, index, list(carried))
    on = body.constant(True, "bool") if stop is None else apply(body, "Not", stop)
    body.results = [body.emit("Identity", v, type=(v.dtype, v.shape)) for v in (on, *after, *parts)]
    _apart(body)
    types = [*((v.dtype, v.shape) for v in begin), *((d, (count, *shape)) for d, shape in collected)]
    many = s.scalar(s.size(count))
    made = s.emits("Loop", many, s.constant(True, "bool"), *begin, types=types, bodies=(body,))
    return list(made[: len(begin)]), [_shaped(s, v, count) for v in made[len(begin) :]]


def _shaped(s: Scope, v: Value, count: Dim) -> Value:
    """What was collected, with all its sizes: where there was no turn, nobody knows them."""
    if isinstance(count, int) and count > 0:
        return v
    return s.emit("Reshape", v, s.shape(v.shape), type=(v.dtype, v.shape), allowzero=1, kept=True)


def _apart(body: Body) -> None:
    """Each result is one of its own, also where two are the same value."""
    seen: set[str] = set()
    for k, v in enumerate(body.results):
        if v.name in seen:
            made = body.maker(v)
            assert made is not None
            again = Value(body.fresh("same"), v.dtype, v.shape)
            body.nodes.append(type(made)(made.op, made.args, made.attrs, (again.name,)))
            body.results[k] = v = again
        seen.add(v.name)


def _scan(w: Walk, n: Node) -> tuple[Value, ...]:
    """In falling order the index is counted from behind, and so is what is collected."""
    s, body, carries, count = w.scope, n.attrs["body"], n.attrs["carries"], n.attrs["count"]
    names = [m.name for m in body if m.op == "input"]
    begin = [w.full(a) for a in n.args[:carries]]
    captured = {name: w.thin(a) for name, a in zip(names[carries:], n.args[carries:], strict=True)}
    results = [v for _, v in body.outputs]
    until = bool(n.attrs["until"])
    whole = results[:-1] if until else results

    def turn(inner: Scope, index: Value, carried: list[Value]) -> tuple[list[Value], list[Value], Value | None]:
        if n.attrs["reverse"]:
            last = apply(inner, "Sub", inner.scalar(inner.size(count)), inner.constant(1, "i64"))
            index = apply(inner, "Sub", last, index)
        inner.bound[n.attrs["index"]] = inner.reshape(index, (1,))
        values: dict[str, Value | tuple[Value, ...]] = dict(zip(names[:carries], carried, strict=True))
        known = w.within(body)
        inside = Walk(body.nodes, inner, w.rules, {**values, **captured}, known, within=w.within, refused=w.refused)
        made = inside.run(results)
        stop = made.pop() if until else None
        return made[:carries], made[carries:], stop

    parts = [(body[v].dtype, body[v].shape) for v in whole[carries:]]
    after, collected = loop(s, count, begin, turn, parts)
    if n.attrs["reverse"]:
        collected = [turned(s, v, [0]) for v in collected]
    if until:
        collected = [_filled(s, v) for v in collected]
    assert isinstance(n.type, TupleType)
    return (*after, *collected)


def _filled(s: Scope, v: Value) -> Value:
    """What was not reached is 0."""
    there = s.emit("Shape", v, type=("i64", (1,)), start=0, end=1)
    missing = s.emit("Sub", s.size(v.shape[0]), there, type=("i64", (1,)))
    zeros = s.constant([0] * v.rank, "i64")
    rest = s.constant([0] * (v.rank - 1), "i64")
    around = s.emit("Concat", zeros, missing, rest, type=("i64", (2 * v.rank,)), axis=0)
    return s.emit("Pad", v, around, s.constant(0, v.dtype), type=(v.dtype, v.shape), mode="constant")


RULES: Mapping[str, Rule] = {"scan": _scan}
