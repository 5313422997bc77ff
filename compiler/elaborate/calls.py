"""Calls: binding arguments to parameters, matching types against signatures, and inlining what is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import Label, error
from ...dsl.source import Span
from ..types import DTYPES, Dim, Size
from . import statements
from .context import Context
from .operations import refine, same_size, tensor
from .scope import MISSING, Instance, Scope, suggest
from .values import REQUIRED, Bound, Builtin, Defined, Group, Partial, Results, Shared, Tensor, kind

KINDS = ("int", "float", "bool", "str", "fn")


def is_kind(t: ast.Type | None) -> bool:
    """Whether a type is a compile-time kind (a bare `bool` is one, `bool[]` is a scalar tensor)."""
    return t is not None and t.dims is None and t.base in KINDS


class Arguments:
    """What a builtin receives: values as attributes, the call's span, and the span of each argument."""

    def __init__(self, span: Span, values: dict[str, Any], spans: dict[str, Span]):
        self.span, self.values, self.spans = span, values, spans

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def at(self, name: str) -> Span:
        return self.spans.get(name, self.span)


# --- from syntax to a call -------------------------------------------------------------------------------------------


def call(cx: Context, e: ast.Call, scope: Scope) -> Any:
    from .expressions import evaluate

    function = evaluate(cx, e.function, scope)
    if isinstance(function, Builtin) and function.name == "grad":
        for a in [a for a in e.arguments if a.name == "x" or (a.name is None and a in e.arguments[1:2])]:
            _differentiable_name(a.value)
    positional, named, spans = arguments(cx, function, e.arguments, scope)
    return apply(cx, function, positional, named, e.span, spans, scope, None)


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


def pipe(cx: Context, e: ast.Pipe, scope: Scope) -> Any:
    """`x |> label: f(a)`. Chains are walked in a loop: they may be long."""
    from .expressions import evaluate

    chain: list[ast.Pipe] = []
    head: ast.Expr = e
    while isinstance(head, ast.Pipe):
        chain.append(head)
        head = head.value
    value = evaluate(cx, head, scope)
    for step in reversed(chain):
        value = pipe_into(cx, value, step.value.span, step.target, step.label, scope)
    return value


def pipe_into(cx: Context, value: Any, at: Span, target: ast.Expr, label: str | None, scope: Scope) -> Any:
    from .expressions import evaluate

    if isinstance(target, ast.Call):
        function = evaluate(cx, target.function, scope)
        positional, named, spans = arguments(cx, function, target.arguments, scope, piped=1)
        return apply(cx, function, [value, *positional], named, target.span, {0: at, **spans}, scope, label)
    return apply(cx, evaluate(cx, target, scope), [value], {}, target.span, {0: at}, scope, label)


def arguments(
    cx: Context, function: Any, given: Sequence[ast.Argument], scope: Scope, piped: int = 0
) -> tuple[list[Any], dict[str, Any], dict[Any, Span]]:
    """Evaluated arguments. A call given for a parameter of kind `fn` stays a function (a partial application)."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    spans: dict[Any, Span] = {}
    parameters = _parameters_of(function)
    for a in given:
        if a.name is None:
            if named:
                raise error("E0203", "a positional argument cannot follow a named one", a.span)
            k = len(positional) + piped
            spans[k] = a.value.span
            wants = parameters[k] if k < len(parameters) else None
            positional.append(_argument(cx, a.value, wants, scope))
        else:
            if a.name in named:
                raise error("E0203", f"argument `{a.name}` is given twice", a.span)
            spans[a.name] = a.value.span
            wants = next((p for p in parameters if p.name == a.name), None)
            named[a.name] = _argument(cx, a.value, wants, scope)
    return positional, named, spans


def _parameters_of(function: Any) -> Sequence[ast.Parameter]:
    return function.definition.parameters if isinstance(function, Defined) else ()


def _argument(cx: Context, e: ast.Expr, wants: ast.Parameter | None, scope: Scope) -> Any:
    from .expressions import evaluate

    if wants is not None and wants.type is not None and wants.type.base == "fn" and wants.type.dims is None:
        return as_function(cx, e, scope)
    return evaluate(cx, e, scope)


def as_function(cx: Context, e: ast.Expr, scope: Scope) -> Any:
    """An expression as a function: a call is a partial application."""
    from .expressions import evaluate

    if isinstance(e, ast.Call):
        function = evaluate(cx, e.function, scope)
        positional, named, _ = arguments(cx, function, e.arguments, scope)
        if isinstance(function, Builtin | Defined | Partial):
            return Partial(function, tuple(positional), named)
        raise error("E0307", f"{kind(function)} is not a function", e.function.span)
    value = evaluate(cx, e, scope)
    return Partial(value, (), {}) if isinstance(value, Builtin | Defined) else value


# --- calling ---------------------------------------------------------------------------------------------------------


def apply(
    cx: Context,
    function: Any,
    positional: Sequence[Any],
    named: Mapping[str, Any],
    span: Span,
    spans: Mapping[Any, Span],
    scope: Scope,
    label: str | None,
) -> Any:
    """Call any value that can be called."""
    result: Any
    instance = scope.instance
    path = instance.child(label) if instance is not None and label is not None else None
    match function:
        case Builtin():
            if label is not None and path is None:
                raise error("E0307", "a label can only stand inside a layer or a model", span)
            values, where = bind(
                function.name,
                [p for p, _ in function.parameters],
                dict(function.parameters),
                positional,
                named,
                span,
                spans,
            )
            result = function.call(cx, Arguments(span, values, where))
        case Partial():
            merged = {**function.named, **named}
            inner: Any = function.function
            accepts = _accepts(inner)
            if accepts is not None:
                merged = {k: v for k, v in merged.items() if k in accepts or k not in ("fan_in", "fan_out")}
            # what is piped comes first, what the partial was given follows
            return apply(cx, inner, [*positional, *function.positional], merged, span, spans, scope, label)
        case Shared():
            result = call_layer(
                cx,
                function.layer,
                [*positional, *function.positional],
                {**function.named, **named},
                span,
                spans,
                function.path,
            )
        case Defined(definition=ast.Layer(top=True) as d):
            result = call_layer(cx, function, positional, named, span, spans, d.name)
        case Defined(definition=ast.Layer() as d):
            if instance is None:
                raise error(
                    "E0307",
                    f"the layer `{d.name}` owns parameters, so it can only be called inside a model or a layer",
                    span,
                )
            if path is not None:
                if label in instance.labels:
                    raise error(
                        "E0202",
                        f"the label `{label}` is already used in here",
                        span,
                        "",
                        Label(instance.labels[label], "first here"),
                    )
                instance.labels[label or ""] = span
            result = call_layer(cx, function, positional, named, span, spans, path or instance.number(d.name))
        case Defined(definition=ast.Optimizer() as d):
            values, _ = bind(
                d.name,
                [p.name for p in d.parameters],
                defaults(cx, d.parameters, function.scope),
                positional,
                named,
                span,
                spans,
            )
            for p in d.parameters:
                _check_kind(cx, p, values[p.name], span, d.name)
            return Bound(function, values)
        case Defined(definition=ast.Function() | ast.Export()):
            result = call_function(cx, function, positional, named, span, spans)
        case _:
            raise error("E0307", f"{kind(function)} cannot be called", span)
    if path is not None and isinstance(result, Tensor):
        cx.taps[path] = result
    return result


def _accepts(function: Any) -> set[str] | None:
    match function:
        case Builtin(parameters=parameters):
            return {name for name, _ in parameters}
        case Defined(definition=d):
            return {p.name for p in d.parameters}
    return None


def bind(
    name: str,
    parameters: Sequence[str],
    default: Mapping[str, Any],
    positional: Sequence[Any],
    named: Mapping[str, Any],
    span: Span,
    spans: Mapping[Any, Span],
) -> tuple[dict[str, Any], dict[str, Span]]:
    """Values and spans by parameter name."""
    if len(positional) > len(parameters):
        at = spans.get(len(parameters), span)
        raise error(
            "E0203",
            f"`{name}` takes {_count(len(parameters), 'argument')}, but {len(positional)} are given",
            at,
            help=f"it takes {_listing(parameters)}",
        )
    values = dict(zip(parameters, positional, strict=False))
    where = {p: spans[k] for k, p in enumerate(parameters[: len(positional)]) if k in spans}
    for key, value in named.items():
        if key not in parameters:
            near = suggest(key, list(parameters))
            advice = f"did you mean `{near}`?" if near else f"it takes {_listing(parameters)}"
            raise error("E0203", f"`{name}` has no parameter `{key}`", spans.get(key, span), help=advice)
        if key in values:
            raise error("E0203", f"`{name}` is given `{key}` twice", spans.get(key, span))
        values[key] = value
        where[key] = spans.get(key, span)
    for p in parameters:
        if p not in values:
            if default.get(p, REQUIRED) is REQUIRED:
                raise error(
                    "E0203", f"`{name}` is missing its argument `{p}`", span, help=f"it takes {_listing(parameters)}"
                )
            values[p] = default[p]
    return {p: values[p] for p in parameters}, where


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _axes(n: int) -> str:
    return f"{n} {'axis' if n == 1 else 'axes'}"


def _listing(parameters: Sequence[str]) -> str:
    return ", ".join(f"`{p}`" for p in parameters) or "no arguments"


def defaults(cx: Context, parameters: Sequence[ast.Parameter], scope: Scope) -> dict[str, Any]:
    """Default values; one may refer to an earlier parameter (`stride = kernel`), so those stay unevaluated."""
    return {p.name: (Default(p.default) if p.default is not None else REQUIRED) for p in parameters}


class Default:
    """A default value not yet evaluated."""

    __slots__ = ("expression",)

    def __init__(self, expression: ast.Expr):
        self.expression = expression


def call_function(
    cx: Context,
    function: Defined,
    positional: Sequence[Any],
    named: Mapping[str, Any],
    span: Span,
    spans: Mapping[Any, Span],
) -> Any:
    """Inline a `fn`. It is pure: no instance, so it can own nothing."""
    d = function.definition
    assert isinstance(d, ast.Function | ast.Export)
    from .expressions import evaluate

    with cx.calling(d.name, span):
        inner = enter(cx, function, positional, named, span, spans, None)
        if isinstance(d.body, tuple):
            value = statements.run(cx, d.body, inner)
            if value is statements.NOTHING:
                value = named_results(cx, d, inner, span)
        else:
            value = evaluate(cx, d.body, inner)
            cx.returned = d.body.span
        return check_results(cx, d, value, inner, span)


def call_layer(
    cx: Context,
    layer: Defined,
    positional: Sequence[Any],
    named: Mapping[str, Any],
    span: Span,
    spans: Mapping[Any, Span],
    path: str,
) -> Any:
    """Inline a layer or model as the instance at `path`."""
    d = layer.definition
    assert isinstance(d, ast.Layer)
    outer_site = cx.site
    with cx.calling(d.name, span):
        cx.site = path
        try:
            inner = enter(cx, layer, positional, named, span, spans, Instance(path))
            if d.top:
                cx.program.normalize(cx, d, inner)
            value = statements.run(cx, d.body, inner)
            if value is statements.NOTHING:
                value = named_results(cx, d, inner, span)
            return check_results(cx, d, value, inner, span)
        finally:
            cx.site = outer_site


def enter(
    cx: Context,
    function: Defined,
    positional: Sequence[Any],
    named: Mapping[str, Any],
    span: Span,
    spans: Mapping[Any, Span],
    instance: Instance | None,
) -> Scope:
    """The scope of a body: parameters bound, sizes of the signature matched."""
    from .expressions import evaluate

    d = function.definition
    values, where = bind(
        d.name,
        [p.name for p in d.parameters],
        defaults(cx, d.parameters, function.scope),
        positional,
        named,
        span,
        spans,
    )
    inner = Scope(function.scope, instance)
    pending: list[tuple[ast.Expr, Dim, Tensor, ast.Parameter, Span]] = []
    for p in d.parameters:
        value = values[p.name]
        at = where.get(p.name, span)
        if isinstance(value, Default):
            wants_fn = p.type is not None and p.type.base == "fn"
            value = as_function(cx, value.expression, inner) if wants_fn else evaluate(cx, value.expression, inner)
        if p.type is not None and not is_kind(p.type):
            value = match(cx, value, p, inner, at, pending, d.name)
        else:
            value = _check_kind(cx, p, value, at, d.name)
        inner.bind(p.name, value, p.span)
    for dim, size, value, p, at in pending:
        wanted = evaluate(cx, dim, inner)
        if same_size(cx, size, wanted, f"{_title(p, d.name)}: {size} must equal {wanted}", at) is None:
            raise error(
                "E0301",
                f"{_title(p, d.name)} must be {_type_text(p.type)}, but {size} is not {wanted}",
                at,
                str(value.type),
                Label(dim.span, f"{wanted} is wanted here"),
            )
    return inner


def _title(p: ast.Parameter, owner: str) -> str:
    if not p.name:
        return f"the result of `{owner}`"
    return f"`{p.name}` of `{owner}`" if owner else f"`{p.name}`"


def _type_text(t: ast.Type | None) -> str:
    return t.span.text if t is not None else "anything"


def _check_kind(cx: Context, p: ast.Parameter, value: Any, at: Span, owner: str) -> Any:
    if isinstance(value, Default):
        return value
    base = p.type.base if p.type is not None and is_kind(p.type) else None
    ok = True
    match base:
        case "int":
            ok = isinstance(value, int | Size) and not isinstance(value, bool)
        case "float":
            ok = isinstance(value, int | float | Size) and not isinstance(value, bool)
            value = float(value) if ok and isinstance(value, int) else value
        case "bool":
            ok = isinstance(value, bool)
        case "str":
            ok = isinstance(value, str)
        case "fn":
            ok = isinstance(value, Builtin | Defined | Partial | Shared)
    if not ok:
        assert base is not None
        raise error(
            "E0307",
            f"{_title(p, owner)} is a compile-time {base}, not {kind(value)}",
            at,
            "",
            Label(p.span, "declared here"),
        )
    return value


def match(cx: Context, value: Any, p: ast.Parameter, scope: Scope, at: Span, pending: list[Any], owner: str) -> Any:
    """A tensor argument against its declared type: binds free size names in `scope`, defers computed sizes."""
    assert p.type is not None
    dtype = cx.program.dtype(p.type)
    if isinstance(value, Group):
        raise error("E0307", f"{_title(p, owner)} must be {_type_text(p.type)}, not a group of parameters", at)
    x = tensor(cx, value, at, None if isinstance(value, Tensor) else dtype)
    if x.dtype != dtype:
        raise error(
            "E0302",
            f"{_title(p, owner)} must be {_type_text(p.type)}, but it is {x.type}",
            at,
            "",
            Label(p.type.span, f"{dtype} is wanted here"),
            help=f"write `cast(x, {dtype})` where it is meant",
        )
    dims = p.type.dims or ()
    rests = [k for k, d in enumerate(dims) if isinstance(d, ast.Rest)]
    if len(rests) > 1:
        raise error("E0303", "a type can have one `*name` at most", p.type.span)
    if (x.rank < len(dims) - 1) if rests else (x.rank != len(dims)):
        raise error(
            "E0303",
            f"{_title(p, owner)} must be {_type_text(p.type)}, but it is {x.type}",
            at,
            "",
            Label(
                p.type.span,
                f"{_axes(len(dims) - len(rests))}{' or more' if rests else ''} wanted here",
            ),
        )
    axis = 0
    shape: list[Dim] = list(x.shape)
    for d in dims:
        if isinstance(d, ast.Rest):
            n = x.rank - (len(dims) - 1)
            sizes = x.shape[axis : axis + n]
            known = scope.names.get(d.name)
            if isinstance(known, tuple):
                if len(known) != n or any(
                    same_size(cx, s, w, f"{_title(p, owner)}: {s} must equal {w}", at) is None
                    for s, w in zip(sizes, known, strict=False)
                ):
                    raise error(
                        "E0301",
                        f"{_title(p, owner)}: the axes *{d.name} are {list(map(str, sizes))}, but "
                        f"{list(map(str, known))} elsewhere",
                        at,
                    )
            scope.bind(d.name, tuple(sizes), d.span)
            axis += n
            continue
        size = x.shape[axis]
        if isinstance(d, ast.Name):
            known = scope.names.get(d.id, MISSING)
            if known is MISSING:
                outer = scope.lookup(d.id)
                if outer is not MISSING:
                    outer = cx.program.force(cx, outer, d.span)
                known = outer if isinstance(outer, int | Size) and not isinstance(outer, bool) else MISSING
            if known is MISSING:
                scope.bind(d.id, size, d.span)
            else:
                agreed = same_size(cx, size, known, f"{_title(p, owner)}: {d.id} is {known}, not {size}", at)
                if agreed is None:
                    told = scope.where(d.id)
                    labels = (
                        [Label(told, f"{d.id} is {known} from here")] if told is not None and told != d.span else []
                    )
                    raise error(
                        "E0301",
                        f"{_title(p, owner)} must be {_type_text(p.type)} with {d.id} = {known}, but it is {x.type}",
                        at,
                        f"{x.type}{cx.origin(x)}",
                        *labels,
                    )
                shape[axis] = agreed
        elif isinstance(d, ast.Int):
            agreed = same_size(cx, size, d.value, f"{_title(p, owner)}: {size} must be {d.value}", at)
            if agreed is None:
                raise error(
                    "E0301",
                    f"{_title(p, owner)} must be {_type_text(p.type)}, but {size} is not {d.value}",
                    at,
                    f"{x.type}{cx.origin(x)}",
                    Label(d.span, f"{d.value} is wanted here"),
                )
            shape[axis] = agreed
        else:
            pending.append((d, size, x, p, at))
        axis += 1
    return refine(cx, x, shape, at)


# --- results ---------------------------------------------------------------------------------------------------------


def named_results(cx: Context, d: Any, scope: Scope, span: Span) -> Any:
    """Results that the body assigned by name."""
    names = [r.name for r in d.results if r.name is not None]
    if not names:
        raise error(
            "E0203", f"`{d.name}` returns nothing", d.span, help="end it with `return value`, or name its results"
        )
    items = []
    for r in d.results:
        value = scope.names.get(r.name, MISSING)
        if value is MISSING:
            raise error(
                "E0201",
                f"`{d.name}` never assigns its result `{r.name}`",
                r.span,
                help=f"write `{r.name} = ...` in its body",
            )
        items.append(value)
    return items[0] if len(items) == 1 else Results(tuple(names), tuple(items))


def check_results(cx: Context, d: Any, value: Any, scope: Scope, span: Span) -> Any:
    """The value against the declared results."""
    from .expressions import evaluate

    if not d.results:
        return value
    items = list(value.items) if isinstance(value, Results) else [value]
    if len(items) != len(d.results):
        raise error("E0203", f"`{d.name}` declares {_count(len(d.results), 'result')}, but has {len(items)}", d.span)
    checked: list[Any] = []
    for r, item in zip(d.results, items, strict=True):
        if is_kind(r.type):
            checked.append(_check_kind(cx, ast.Parameter("", r.type, None, span=r.span), item, r.span, d.name))
            continue
        if r.type.dims is None and r.type.base in DTYPES and not isinstance(item, Tensor):
            checked.append(tensor(cx, item, r.span, cx.program.dtype(r.type)))
            continue
        p = ast.Parameter(r.name or "", r.type, None, span=r.span)
        pending: list[Any] = []
        at = scope.where(r.name) if r.name else cx.returned
        x = match(cx, item, p, scope, at or r.span, pending, d.name)
        for dim, size, _, _, _ in pending:
            wanted = evaluate(cx, dim, scope)
            if same_size(cx, size, wanted, f"the result of `{d.name}`: {size} must equal {wanted}", dim.span) is None:
                raise error(
                    "E0301",
                    f"the result of `{d.name}` must be {_type_text(r.type)}, but it is {x.type}",
                    dim.span,
                    f"{wanted} is wanted here",
                )
        checked.append(x)
    if len(checked) == 1:
        return checked[0]
    names = tuple(r.name or "" for r in d.results)
    return Results(names if all(names) else None, tuple(checked))
