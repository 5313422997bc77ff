"""Index notation: `y[b, k] = sum[c](x[b, c] * w[k, c])`.

An expression under indices is a *labelled* tensor: a tensor whose axes are named. References become labelled tensors
(`labels`), a first walk finds how far each index runs (`ranges`), a second makes the values (`values`).
"""

from __future__ import annotations

from ....dsl import ast
from ....dsl.errors import error
from ..context import Context
from ..scope import Scope
from ..shapes import tensor
from ..values import Tensor, Value
from .labels import Indices, Labelled, comprehensions
from .ranges import find_ranges, ranged
from .values import align, evaluate


def assign(cx: Context, s: ast.Assign, scope: Scope) -> Tensor:
    """`y[b, *s] = e`: the value with its axes in the order of the left side."""
    (target,) = s.targets
    ix = Indices()
    assert target.indices is not None
    for item in target.indices:
        match item:
            case ast.Rest(name=name):
                ix.rests.setdefault(name, None)
            case ast.Name(id=name) | ast.Binder(name=name):
                if name in ix.names:
                    raise error("E0309", f"the index `{name}` stands twice on the left", item.span)
                ix.names.add(name)
                if isinstance(item, ast.Binder):
                    ranged(cx, item, ix, scope)
            case _:
                raise error("E0309", "the left side of index notation takes plain indices", item.span)
    for c in comprehensions(s.value):
        for b in c.binders:
            if b.name in ix.names:
                raise error("E0309", f"the index `{b.name}` is on the left, so it cannot be bound as well", b.span)
    find_ranges(cx, s.value, ix, scope)
    value = evaluate(cx, s.value, ix, scope)
    wanted: list[str] = []
    for item in target.indices:
        match item:
            case ast.Rest(name=name):
                wanted += ix.expand(name, item.span)
            case ast.Name(id=name) | ast.Binder(name=name):
                wanted.append(name)
    labelled = value if isinstance(value, Labelled) else Labelled(tensor(cx, value, s.value.span, cx.real), ())
    if labelled.tensor.rank != len(labelled.labels):
        raise error("E0309", f"{labelled.tensor.type} stands without indices among indexed values", s.value.span)
    extra = [label for label in labelled.labels if label not in wanted]
    if extra:
        raise error(
            "E0309",
            f"the index `{extra[0]}` is free on the right, but not on the left",
            s.value.span,
            help=f"reduce it, `sum[{extra[0]}](...)`, or add it on the left",
        )
    return align(cx, labelled, wanted, ix, s.span)


def comprehension(cx: Context, e: ast.Comprehension, scope: Scope) -> Value:
    """`sum[i](x[i] * w[i])` outside of an indexed assignment: every index is bound, the result is a scalar."""
    ix = Indices()
    find_ranges(cx, e, ix, scope)
    value = evaluate(cx, e, ix, scope)
    if isinstance(value, Labelled):
        if value.labels:
            raise error("E0309", f"the index `{value.labels[0]}` is free", e.span, help="write `y[i] = ...` to keep it")
        return value.tensor
    return value
