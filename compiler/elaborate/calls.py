"""Calls: from syntax to a function and its arguments, and what each kind of function does with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from ...dsl import ast
from ...dsl.errors import error
from ...dsl.source import Span
from ..types.tensors import FLOATS
from . import parts
from .context import Context, is_std
from .groups import matched
from .results import check_results, named_results
from .scope import MISSING, Instance, Scope
from .signatures import bind, check_kind, defaults, enter
from .stacked import each
from .values import (
    POISON,
    REQUIRED,
    Arguments,
    Bound,
    Builtin,
    Defined,
    Given,
    Group,
    Partial,
    Poison,
    Results,
    Shared,
    Tensor,
    Value,
    kind,
)
from .variables import GROUPS, normalize

WHOLE_GROUPS = ("sum", "mean", "max", "min", "prod", "variance", "norm", "any", "all", "count", "grad")


def call(cx: Context, e: ast.Call, function: Value, scope: Scope) -> Value:
    """What a function makes of the arguments of a call."""
    if isinstance(function, Builtin) and function.name == "grad":
        for k, a in enumerate(e.arguments):
            if a.name == "x" or (a.name is None and k == 1):
                _differentiable_name(a.value)
    return apply(cx, function, arguments(cx, function, e.arguments, e.span, scope), scope)


def callee(cx: Context, e: ast.Expr, scope: Scope) -> Value:
    """What a call names: a function, or the layer that stands at a path of a model."""
    path = parts.path_of(e, scope)
    if path is not None:
        return parts.layer_at(cx, path, e.span)
    value = cx.evaluate(e, scope)
    if isinstance(value, Group) and isinstance(e, ast.Name):  # `params`, a group in train blocks, and a function
        outer = cx.program.scope.lookup(e.id)
        return value if outer is MISSING else cx.program.force(cx, outer, e.span)
    return value


def _whole(cx: Context, e: ast.Expr, scope: Scope) -> Value:
    """An argument that names a model or a part of one, or several of them."""
    if isinstance(e, ast.List):
        return cx.listed(tuple(_whole(cx, item, scope) for item in e.items), e.span)
    return callee(cx, e, scope)


def _differentiable_name(e: ast.Expr) -> None:
    """`grad` is with respect to what has a name: a new expression is not what its first argument is made of."""
    match e:
        case ast.Binary() | ast.Unary() | ast.Index() | ast.Pipe() | ast.Comprehension() | ast.IfExpr():
            raise error(
                "E0401",
                "`grad` is with respect to a name, a parameter or a group, not an expression",
                e.span,
                "the first argument does not depend on this new value",
                help="name it first: `h = ...`, then use `h` in both",
            )
        case ast.List(items=items):
            for item in items:
                _differentiable_name(item)


def pipe(cx: Context, e: ast.Pipe, scope: Scope) -> Value:
    """`x |> label: f(a)`. Chains are walked in a loop: they may be long."""
    chain: list[ast.Pipe] = []
    head: ast.Expr = e
    while isinstance(head, ast.Pipe):
        chain.append(head)
        head = head.value
    value = cx.evaluate(head, scope)
    for step in reversed(chain):
        value = pipe_into(cx, value, step.value.span, step.target, step.label, scope)
    return value


def pipe_into(cx: Context, value: Value, at: Span, target: ast.Expr, label: str | None, scope: Scope) -> Value:
    if isinstance(target, ast.Call):
        function = callee(cx, target.function, scope)
        given = arguments(cx, function, target.arguments, target.span, scope, piped=1)
    else:
        function, given = callee(cx, target, scope), Given((), {}, target.span)
    return apply(cx, function, given.after((value,), {0: at}), scope, label)


def arguments(
    cx: Context, function: Value, listed: Sequence[ast.Argument], span: Span, scope: Scope, piped: int = 0
) -> Given:
    """Evaluated arguments. A call given for a parameter of kind `fn` stays a function (a partial application)."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    spans: dict[int | str, Span] = {}
    parameters = _parameters_of(function)
    evaluate = partial(_whole, cx) if isinstance(function, Builtin) and function.name in GROUPS else cx.evaluate
    for a in listed:
        if a.name is None:
            if named:
                raise error("E0203", "a positional argument cannot follow a named one", a.span)
            k = len(positional) + piped
            spans[k] = a.value.span
            wants = parameters[k] if k < len(parameters) else None
            positional.append(as_function(cx, a.value, scope) if _is_fn(wants) else evaluate(a.value, scope))
        else:
            if a.name in named:
                raise error("E0203", f"argument `{a.name}` is given twice", a.span)
            spans[a.name] = a.value.span
            wants = next((p for p in parameters if p.name == a.name), None)
            named[a.name] = as_function(cx, a.value, scope) if _is_fn(wants) else evaluate(a.value, scope)
    return Given(tuple(positional), named, span, spans)


def _parameters_of(function: Value) -> Sequence[ast.Parameter]:
    return function.definition.parameters if isinstance(function, Defined) else ()


def _is_fn(p: ast.Parameter | None) -> bool:
    return p is not None and p.type is not None and p.type.base == "fn" and p.type.dims is None


def as_function(cx: Context, e: ast.Expr, scope: Scope) -> Value:
    """An expression as a function: a call is a partial application."""
    if isinstance(e, ast.Call):
        function = cx.evaluate(e.function, scope)
        given = arguments(cx, function, e.arguments, e.span, scope)
        if isinstance(function, Builtin | Defined | Partial):
            return Partial(function, given.positional, given.named)
        raise error("E0307", f"{kind(function)} is not a function", e.function.span)
    value = cx.evaluate(e, scope)
    return Partial(value, (), {}) if isinstance(value, Builtin | Defined) else value


# --- calling ---------------------------------------------------------------------------------------------------------


def apply(cx: Context, function: Value, given: Given, scope: Scope, label: str | None = None) -> Value:
    """Call any value that can be called."""
    result: Value
    instance = scope.instance
    path = instance.child(label) if instance is not None and label is not None else None
    first = len(cx.builder.nodes)
    match function:
        case Builtin(name=name, parameters=parameters):
            if label is not None and path is None:
                raise error("E0307", "a label can only stand inside a layer or a model", given.span)
            values, where = bind(name, dict(parameters), given)
            known = cx.program.faults is None or POISON not in values.values()
            result = _over_members(cx, function, values, where, given.span) if known else POISON
        case Partial(function=inner):
            return apply(
                cx, inner, _without_fans(inner, given.before(function.positional, function.named)), scope, label
            )
        case Shared():
            result = call_layer(cx, function.layer, _as_configured(function, given), function.path)
        case Defined(definition=ast.Layer(top=True, name=name)):
            result = call_layer(cx, function, given, name)
        case Defined(definition=ast.Layer(name=name)):
            result = call_layer(cx, function, given, _place(instance, name, label, given.span))
        case Defined(definition=ast.Optimizer() as d):
            values, _ = bind(d.name, defaults(d.parameters), given)
            for p in d.parameters:
                check_kind(p, values[p.name], given.span, d.name)
            return Bound(function, values) if POISON not in values.values() else POISON
        case Defined(definition=ast.Function() | ast.Export()):
            result = call_function(cx, function, given)
        case Poison():
            result = POISON
        case _:
            raise error("E0307", f"{kind(function)} cannot be called", given.span)
    if path is not None and result is POISON and cx.faults is not None:
        cx.faults.unknown.add(path)
    if path is not None and isinstance(result, Tensor):
        cx.inner[path] = result
        if not cx.frames:  # in a scan it is many values
            cx.taps[path] = result
        match function:
            case Builtin(name=name) | Defined(definition=ast.Function(name=name)):
                cx.note(path, cx.site, name, first, result, given.span)
    if cx.met is not None:
        cx.met(given.span, result)
    return result


def _over_members(cx: Context, function: Builtin, values: dict[str, Any], where: dict[str, Span], span: Span) -> Value:
    """A builtin's result; for each member by itself where a group is given to one that does not take groups."""
    groups = {name: v for name, v in values.items() if isinstance(v, Group)}
    if not groups or function.name in WHOLE_GROUPS:
        result: Value = function.call(cx, Arguments(span, values, where))
        return result

    def work(*members: Tensor) -> Value:
        made: Value = function.call(cx, Arguments(span, {**values, **dict(zip(groups, members, strict=True))}, where))
        return made

    found = matched(tuple(groups.values()), span)
    return next(iter(groups.values())).of({path: each(cx, path, span, work, *ts) for path, ts in found.items()})


def _place(instance: Instance | None, layer: str, label: str | None, span: Span) -> str:
    """The path of a new instance of a layer."""
    if instance is None:
        raise error(
            "E0307", f"the layer `{layer}` owns parameters, so it can only be called inside a model or a layer", span
        )
    if label is None:
        return instance.number(layer, span)
    return instance.part(label, span, f"the label `{label}` is already used in here")


def _without_fans(function: Value, given: Given) -> Given:
    """`init(fan_in = D, fan_out = out)` works for functions that need no fans."""
    match function:
        case Builtin(parameters=parameters):
            accepts = {name for name, _ in parameters}
        case Defined(definition=d):
            accepts = {p.name for p in d.parameters}
        case _:
            return given
    named = {k: v for k, v in given.named.items() if k in accepts or k not in ("fan_in", "fan_out")}
    return Given(given.positional, named, given.span, given.spans)


def _as_configured(part: Shared, given: Given) -> Given:
    """The arguments of a call, and those that a layer already has."""
    names = [p.name for p in part.layer.definition.parameters][: len(given.positional)]
    named = {n: v for n, v in part.named.items() if v is not REQUIRED or n not in names}
    return given.before(part.positional, named)


def _real(cx: Context, d: ast.Function | ast.Export | ast.Layer, given: Given) -> str:
    """The float dtype of a body: in the standard library that of the arguments, where they have one; in a file that of
    the program. A call that is given no floats, such as an initialiser's, is of what is around it."""
    floats = {t.dtype for v in (*given.positional, *given.named.values()) for t in _tensors(v) if t.dtype in FLOATS}
    if not floats:
        return cx.real
    return floats.pop() if is_std(d.span) and len(floats) == 1 else cx.program.settings.dtype


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of an argument."""
    match value:
        case Tensor():
            yield value
        case Results(items=items):
            yield from _tensors(items)
        case Group(members=members):
            yield from members.values()
        case tuple():
            for item in value:
                yield from _tensors(item)


def is_unknown(cx: Context, function: Defined, given: Given) -> bool:
    """Whether nothing is to be learned from the body of a call: it is the library's, and not all is known that it is
    given."""
    poisoned = cx.program.faults is not None and POISON in (*given.positional, *given.named.values())
    return poisoned and is_std(function.definition.span)


def check_given(function: Defined, given: Given) -> Poison:
    """What can be said of a call whose body is not looked into."""
    d = function.definition
    values, where = bind(d.name, defaults(d.parameters), given)
    for p in d.parameters:
        check_kind(p, values[p.name], where.get(p.name, given.span), d.name)
    return POISON


def call_function(cx: Context, function: Defined, given: Given) -> Value:
    """Inline a `fn`. It is pure: no instance, so it can own nothing."""
    d = function.definition
    assert isinstance(d, ast.Function | ast.Export)
    if is_unknown(cx, function, given):
        return check_given(function, given)
    first = len(cx.builder.nodes)
    with cx.calling(d.name, given.span), cx.reading(_real(cx, d, given)):
        inner = enter(cx, function, given, None)
        begun = {p.name: inner.names[p.name] for p in d.parameters}
        if isinstance(d.body, tuple):
            value = cx.run(d.body, inner)
            if value is None:
                value = named_results(cx, d, inner)
        else:
            value = cx.evaluate(d.body, inner)
            cx.returned = d.body.span
        result = check_results(cx, d, value, inner)
    if not is_std(d.span):
        cx.note("", cx.site, d.name, first, result, given.span)
    cx.note_call(d, "", begun, first, result)
    return result


def call_layer(cx: Context, layer: Defined, given: Given, path: str) -> Value:
    """Inline a layer or model as the instance at `path`."""
    d = layer.definition
    assert isinstance(d, ast.Layer)
    if is_unknown(cx, layer, given):
        if cx.faults is not None:
            cx.faults.unknown.add(path)
        return check_given(layer, given)
    outer_site, first = cx.site, len(cx.builder.nodes)
    cx.layers[path] = parts.configured(layer, given, path)
    with cx.calling(d.name, given.span), cx.reading(_real(cx, d, given)):
        cx.site = path
        try:
            inner = enter(cx, layer, given, Instance(path))
            begun = {p.name: inner.names[p.name] for p in d.parameters}
            if d.top:
                normalize(cx, d, inner)
            value = cx.run(d.body, inner)
            if value is None:
                value = named_results(cx, d, inner)
            result = check_results(cx, d, value, inner)
            if isinstance(result, Tensor):
                cx.inner[path] = result
            cx.note(path, outer_site, d.name, first, result, given.span)
            cx.note_call(d, path, begun, first, result)
            return result
        finally:
            cx.site = outer_site
