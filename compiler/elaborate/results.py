"""Results of a body: assigned by name or returned, checked against the signature."""

from __future__ import annotations

from typing import Any

from ...dsl import ast
from ...dsl.errors import error
from ..types.tensors import DTYPES
from .context import Context
from .scope import MISSING, Scope
from .shapes import same_size, tensor
from .signatures import check_kind, dtype_of, is_kind, match, of_type, type_text
from .values import POISON, Results, Tensor, Value


def named_results(cx: Context, d: Any, scope: Scope) -> Value:
    """Results that the body assigned by name."""
    names = [r.name for r in d.results if r.name is not None]
    if not names and scope.doubtful:
        return POISON
    if not names:
        raise error(
            "E0203", f"`{d.name}` returns nothing", d.span, help="end it with `return value`, or name its results"
        )
    items = []
    for r in d.results:
        value = scope.names.get(r.name, MISSING)
        if value is MISSING and scope.doubts(r.name):
            value = POISON
        if value is MISSING:
            what = f"`{d.name}` never assigns its result `{r.name}`"
            cx.give_up(error("E0201", what, r.span, help=f"write `{r.name} = ...` in its body"))
            cx.doubt(scope)
            value = POISON
        items.append(value)
    return items[0] if len(items) == 1 else Results(tuple(names), tuple(items))


def check_results(cx: Context, d: Any, value: Value, scope: Scope) -> Value:
    """The value against the declared results."""
    if not d.results:
        return value
    items: list[Value] = list(value.items) if isinstance(value, Results) else [value]
    if value is POISON:
        items = [POISON] * len(d.results)
    if len(items) != len(d.results):
        raise error(
            "E0203",
            f"`{d.name}` declares {len(d.results)} result{'s' if len(d.results) > 1 else ''}, but has {len(items)}",
            d.span,
        )
    checked: list[Value] = []
    for r, item in zip(d.results, items, strict=True):
        if item is POISON or not r.type.base:
            checked.append(of_type(cx, r.type, scope) if item is POISON else item)
            continue
        if is_kind(r.type) and not (r.type.base == "bool" and isinstance(item, Tensor)):  # that is a scalar tensor
            checked.append(check_kind(ast.Parameter("", r.type, None, span=r.span), item, r.span, d.name))
            continue
        if r.type.dims is None and r.type.base in DTYPES and not isinstance(item, Tensor):
            checked.append(tensor(cx, item, r.span, dtype_of(cx, r.type)))
            continue
        at = scope.where(r.name) if r.name else cx.returned
        p = ast.Parameter(r.name or "", r.type, None, span=r.span)
        x, computed = match(cx, item, p, scope, at or r.span, d.name)
        for c in computed:
            wanted = cx.integer(c.dim, scope, "a size")
            if same_size(cx, c.size, wanted, f"the result of `{d.name}`", c.dim.span) is None:
                raise error(
                    "E0301",
                    f"the result of `{d.name}` must be {type_text(r.type)}, but it is {x.type}",
                    c.dim.span,
                    f"{wanted} is wanted here",
                )
        checked.append(x)
    if len(checked) == 1:
        return checked[0]
    names = tuple(r.name or "" for r in d.results)
    return Results(names if all(names) else None, tuple(checked))
