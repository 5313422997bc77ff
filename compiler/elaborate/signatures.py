"""Signatures: arguments bound to parameters, types matched, sizes bound to their names, results checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import Label
from ...dsl.errors import error
from ...dsl.source import Span
from ..types.sizes import Dim, Size
from ..types.tensors import DTYPES
from .context import Context
from .scope import MISSING, Instance, Scope, suggest, unknown
from .shapes import refine, same_size, tensor
from .values import REQUIRED, Builtin, Defined, Given, Group, Partial, Results, Shared, Tensor, is_size, kind

KINDS = ("int", "float", "bool", "str", "fn")


def is_kind(t: ast.Type | None) -> bool:
    """Whether a type is a compile-time kind (a bare `bool` is one, `bool[]` is a scalar tensor)."""
    return t is not None and t.dims is None and t.base in KINDS


def dtype_of(cx: Context, t: ast.Type) -> str:
    """The dtype that a type is written with, as this program reads it."""
    if t.base not in DTYPES:
        raise unknown(t.base, t.span, [*DTYPES, *KINDS], "type")
    return cx.read_dtype(t.base)


def bind(name: str, default: Mapping[str, Any], given: Given) -> tuple[dict[str, Any], dict[str, Span]]:
    """Values and spans by parameter name; `default` has every parameter in order, REQUIRED where there is none."""
    parameters, span = list(default), given.span
    if len(given.positional) > len(parameters):
        count = f"{len(parameters)} argument{'' if len(parameters) == 1 else 's'}"
        at = given.spans.get(len(parameters), span)
        raise error(
            "E0203",
            f"`{name}` takes {count}, but {len(given.positional)} are given",
            at,
            help=f"it takes {_listing(parameters)}",
        )
    values = dict(zip(parameters, given.positional, strict=False))
    where = {p: given.spans[k] for k, p in enumerate(values) if k in given.spans}
    for key, value in given.named.items():
        at = given.spans.get(key, span)
        if key not in default:
            near = suggest(key, parameters)
            advice = f"did you mean `{near}`?" if near else f"it takes {_listing(parameters)}"
            raise error("E0203", f"`{name}` has no parameter `{key}`", at, help=advice)
        if key in values:
            raise error("E0203", f"`{name}` is given `{key}` twice", at)
        values[key], where[key] = value, at
    for p in parameters:
        if values.setdefault(p, default[p]) is REQUIRED:
            raise error(
                "E0203", f"`{name}` is missing its argument `{p}`", span, help=f"it takes {_listing(parameters)}"
            )
    return {p: values[p] for p in parameters}, where


def _axes(n: int) -> str:
    return f"{n} {'axis' if n == 1 else 'axes'}"


def _listing(parameters: Sequence[str]) -> str:
    return ", ".join(f"`{p}`" for p in parameters) or "no arguments"


def defaults(parameters: Sequence[ast.Parameter]) -> dict[str, Any]:
    """Default values; one may refer to an earlier parameter (`stride = kernel`), so those stay unevaluated."""
    return {p.name: (Default(p.default) if p.default is not None else REQUIRED) for p in parameters}


class Default:
    """A default value not yet evaluated."""

    __slots__ = ("expression",)

    def __init__(self, expression: ast.Expr):
        self.expression = expression


def enter(cx: Context, function: Defined, given: Given, instance: Instance | None) -> Scope:
    """The scope of a body: parameters bound, sizes of the signature matched."""

    d = function.definition
    values, where = bind(d.name, defaults(d.parameters), given)
    inner = Scope(function.scope, instance)
    pending: list[tuple[ast.Expr, Dim, Tensor, ast.Parameter, Span]] = []
    for p in d.parameters:
        value = values[p.name]
        at = where.get(p.name, given.span)
        if isinstance(value, Default):
            wants_fn = p.type is not None and p.type.base == "fn"
            value = cx.as_function(value.expression, inner) if wants_fn else cx.evaluate(value.expression, inner)
        if p.type is not None and not is_kind(p.type):
            value = match(cx, value, p, inner, at, pending, d.name)
        else:
            value = check_kind(p, value, at, d.name)
        inner.bind(p.name, value, p.span)
    for dim, size, value, p, at in pending:
        wanted = cx.integer(dim, inner, "a size")
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


def check_kind(p: ast.Parameter, value: Any, at: Span, owner: str) -> Any:
    if isinstance(value, Default):
        return value
    base = p.type.base if p.type is not None and is_kind(p.type) else None
    ok = True
    match base:
        case "int":
            ok = is_size(value)
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
    dtype = dtype_of(cx, p.type)
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
                known = outer if is_size(outer) else MISSING
            if known is MISSING:
                scope.bind(d.id, size, d.span)
            elif not is_size(known):
                told = scope.where(d.id)
                raise error("E0307", f"{_title(p, owner)}: `{d.id}` is a size here, not {kind(known)}", d.span, "",
                            *([Label(told, f"`{d.id}` is {kind(known)} from here")] if told is not None else []),
                            help="give one of the two another name")
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


def named_results(d: Any, scope: Scope) -> Any:
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


def check_results(cx: Context, d: Any, value: Any, scope: Scope) -> Any:
    """The value against the declared results."""

    if not d.results:
        return value
    items = list(value.items) if isinstance(value, Results) else [value]
    if len(items) != len(d.results):
        raise error(
            "E0203",
            f"`{d.name}` declares {len(d.results)} result{'s' if len(d.results) > 1 else ''}, but has {len(items)}",
            d.span,
        )
    checked: list[Any] = []
    for r, item in zip(d.results, items, strict=True):
        if is_kind(r.type) and not (r.type.base == "bool" and isinstance(item, Tensor)):  # that is a scalar tensor
            checked.append(check_kind(ast.Parameter("", r.type, None, span=r.span), item, r.span, d.name))
            continue
        if r.type.dims is None and r.type.base in DTYPES and not isinstance(item, Tensor):
            checked.append(tensor(cx, item, r.span, dtype_of(cx, r.type)))
            continue
        p = ast.Parameter(r.name or "", r.type, None, span=r.span)
        pending: list[Any] = []
        at = scope.where(r.name) if r.name else cx.returned
        x = match(cx, item, p, scope, at or r.span, pending, d.name)
        for dim, size, _, _, _ in pending:
            wanted = cx.integer(dim, scope, "a size")
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
