"""Signatures: arguments bound to parameters, types matched, sizes bound to their names, results checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...dsl import ast
from ...dsl.diagnostics import Fix, Label
from ...dsl.errors import error
from ...dsl.record import dataclass
from ...dsl.source import Span
from ..types.sizes import Dim, Size
from ..types.tensors import DTYPES, TensorType
from .context import Context
from .scope import MISSING, Instance, Scope, suggest, unknown
from .shapes import at_least, divided, refine, same_size, tensor
from .values import (
    POISON,
    REQUIRED,
    Builtin,
    Defined,
    Given,
    Group,
    Partial,
    Shared,
    Tensor,
    Value,
    is_size,
    kind,
)

KINDS = ("int", "float", "bool", "str", "fn")


def is_kind(t: ast.Type | None) -> bool:
    """Whether a type is a compile-time kind (a bare `bool` is one, `bool[]` is a scalar tensor)."""
    return t is not None and t.dims is None and t.base in KINDS


def dtype_of(cx: Context, t: ast.Type) -> str:
    """The dtype that a type is written with, as this program reads it."""
    if t.base not in DTYPES:
        raise unknown(t.base, t.span, [*DTYPES, *KINDS], "type")
    return cx.read_dtype(t.base, t.span)


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
    values: dict[str, Any] = dict(zip(parameters, given.positional, strict=False))
    where = {p: given.spans[k] for k, p in enumerate(values) if k in given.spans}
    for key, value in given.named.items():
        at = given.spans.get(key, span)
        if key not in default:
            near = suggest(key, parameters, 0.7)  # few, and better listed than guessed
            advice = f"did you mean `{near}`?" if near else f"it takes {_listing(parameters)}"
            raise error("E0203", f"`{name}` has no parameter `{key}`", at, help=advice, fix=_renamed(key, near, at))
        if key in values:
            raise error("E0203", f"`{name}` is given `{key}` twice", at)
        values[key], where[key] = value, at
    for p in parameters:
        if values.setdefault(p, default[p]) is REQUIRED:
            raise error(
                "E0203", f"`{name}` is missing its argument `{p}`", span, help=f"it takes {_listing(parameters)}"
            )
    return {p: values[p] for p in parameters}, where


def _renamed(key: str, near: str | None, value: Span) -> Fix | None:
    """Another name for an argument, which stands before its value."""
    start = value.source.text.rfind(key, 0, value.start)
    return Fix(Span(value.source, start, start + len(key)), near) if near and start >= 0 else None


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
    computed: list[Computed] = []
    for p in d.parameters:
        value = values[p.name]
        at = where.get(p.name, given.span)
        if isinstance(value, Default):
            _solve(cx, computed, inner)  # it may be made of their sizes
            wants_fn = p.type is not None and p.type.base == "fn"
            value = cx.as_function(value.expression, inner) if wants_fn else cx.evaluate(value.expression, inner)
        if value is POISON or (p.type is not None and not p.type.base):
            value = _unknown_argument(cx, value, p, inner)
        elif p.type is not None and not is_kind(p.type):
            value, more = match(cx, value, p, inner, at, d.name)
            computed += more
        else:
            value = check_kind(p, value, at, d.name)
        inner.bind(p.name, value, p.span)
        if cx.met is not None:
            cx.met(p.span, value)
    _solve(cx, computed, inner)
    for c in computed:
        wanted = cx.integer(c.dim, inner, "a size")
        _require_size(cx, c, wanted, f"{c.size} is not {wanted}", Label(c.dim.span, f"{wanted} is wanted here"))
    return inner


def _unknown_argument(cx: Context, value: Value, p: ast.Parameter, scope: Scope) -> Value:
    """An argument that is not known, or whose parameter is not: a tensor of the declared type, if the sizes in that are
    known from others; the names of those that are not are poison."""
    if p.type is None or is_kind(p.type) or not p.type.base or value is not POISON:
        return value
    for d in p.type.dims or ():
        for name in [d.name] if isinstance(d, ast.Rest) else names_in(d):
            if scope.lookup(name) is MISSING:
                scope.bind(name, POISON, d.span)
    return of_type(cx, p.type, scope)


def of_type(cx: Context, t: ast.Type, scope: Scope) -> Value:
    """A tensor of a declared type whose sizes are known, in the place of a value that is not; poison otherwise."""
    if not t.base or is_kind(t):
        return POISON
    shape: list[Dim] = []
    for d in t.dims or ():
        size = scope.lookup(d.name) if isinstance(d, ast.Rest) else _size_in(cx, d, scope)
        listed = size if isinstance(size, tuple) else (size,)
        known = [n for n in listed if is_size(n)]
        if len(known) < len(listed):
            return POISON
        shape += known
    return cx.stand_in(TensorType(dtype_of(cx, t), tuple(shape)), t.span)


def _size_in(cx: Context, d: ast.Expr, scope: Scope) -> Value:
    if any(scope.lookup(name) is MISSING for name in names_in(d)):
        return POISON
    return cx.evaluate(d, scope)


def _require_size(cx: Context, c: Computed, wanted: Dim, fault: str, *labels: Label) -> None:
    a = c.argument
    if same_size(cx, c.size, wanted, f"`{c.dim.span.text}`, axis {c.axis} of {a.title}", a.at) is None:
        raise error("E0301", f"{a.wanted}, but {fault}", a.at, str(a.value.type), *labels)


def _solve(cx: Context, computed: Sequence[Computed], scope: Scope) -> None:
    """Bind the names that stand in no axis alone: H of `4*H + 1` is what is left after a subtraction and a division."""
    for c in computed:
        missing = dict.fromkeys(n for n in names_in(c.dim) if scope.lookup(n) is MISSING)
        if len(missing) != 1:
            continue
        (name,) = missing
        linear = _linear(cx, c.dim, name, scope)
        if linear is None or linear[0] == 0:
            advice = (
                f"`{name}` follows from a sum or a multiple, as in `2*{name} + 1`: give this axis a name of its own"
            )
            raise unknown(name, c.dim.span, list(scope.visible()), "size", advice)
        slope, more = linear
        n = divided(cx, c.size - more, slope, c.argument.at)[0]
        _require_size(cx, c, slope * n + more, f"no {name} makes {c.size} of {c.dim.span.text}")
        if not at_least(cx, n, 0, f"`{name}` in {c.argument.title} must not be negative", c.argument.at):
            raise error("E0301", f"`{name}` in {c.argument.title} would be {n}", c.argument.at)
        scope.bind(name, n, c.dim.span)


def _linear(cx: Context, e: ast.Expr, name: str, scope: Scope) -> tuple[Dim, Dim] | None:
    """a and b where the expression is a * name + b."""
    match e:
        case ast.Name(id=n) if n == name:
            return 1, 0
        case ast.Unary(op="-", operand=x) if (of := _linear(cx, x, name, scope)) is not None:
            return -of[0], -of[1]
        case ast.Binary(op="+" | "-" | "*" as op, left=x, right=y) if name in names_in(e):
            p, q = _linear(cx, x, name, scope), _linear(cx, y, name, scope)
            if p is None or q is None or (op == "*" and p[0] != 0 and q[0] != 0):
                return None
            if op == "*":
                return p[0] * q[1] + p[1] * q[0], p[1] * q[1]
            sign = 1 if op == "+" else -1
            return p[0] + sign * q[0], p[1] + sign * q[1]
    return None if name in names_in(e) else (0, cx.integer(e, scope, "a size"))


def names_in(d: ast.Expr | ast.Rest) -> list[str]:
    """The names in a size of a signature."""
    found: list[str] = []
    stack: list[ast.Expr | ast.Rest] = [d]
    while stack:
        match stack.pop():
            case ast.Name(id=name):
                found.append(name)
            case ast.Binary(left=a, right=b):
                stack += [b, a]
            case ast.Unary(operand=x):
                stack.append(x)
    return found


def _title(p: ast.Parameter, owner: str) -> str:
    if not p.name:
        return f"the result of `{owner}`"
    return f"`{p.name}` of `{owner}`" if owner else f"`{p.name}`"


def type_text(t: ast.Type | None) -> str:
    return t.span.text if t is not None else "anything"


def check_kind(p: ast.Parameter, value: Any, at: Span, owner: str) -> Any:
    if isinstance(value, Default) or value is POISON:
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
            help=given_late(p) if isinstance(value, Tensor) and base == "bool" else None,
        )
    return value


def given_late(p: ast.Parameter) -> str | None:
    """How a parameter of a compile-time kind would be one that run time gives."""
    scalar = {"bool": "bool[]", "int": "i32", "float": "f32"}.get(p.type.base if p.type is not None else "")
    chosen = ", over which `where` chooses" if scalar == "bool[]" else ""
    return f"what run time gives is a tensor: `{p.name}: {scalar}`{chosen}" if scalar is not None else None


@dataclass(frozen=True, slots=True)
class Argument:
    """A tensor in the place of a parameter of `owner`, or of its result, whose parameter has no name."""

    value: Tensor
    parameter: ast.Parameter
    at: Span
    owner: str

    @property
    def title(self) -> str:
        return _title(self.parameter, self.owner)

    @property
    def wanted(self) -> str:
        """`title` must be the declared type."""
        return f"{self.title} must be {type_text(self.parameter.type)}"


@dataclass(frozen=True, slots=True)
class Computed:
    """A size of a signature that is an expression: known once all names of sizes are."""

    dim: ast.Expr
    axis: int
    size: Dim  # of the tensor
    argument: Argument


def match(
    cx: Context, value: Value, p: ast.Parameter, scope: Scope, at: Span, owner: str
) -> tuple[Tensor, list[Computed]]:
    """A tensor argument against its declared type: binds free size names in `scope`. Also the sizes that are computed,
    which are to be compared when every parameter is bound."""
    assert p.type is not None
    a = _of_dtype(cx, value, p, at, owner)
    dims, rank = p.type.dims or (), a.value.rank
    rests = sum(isinstance(d, ast.Rest) for d in dims)
    if rests > 1:
        raise error("E0303", "a type can have one `*name` at most", p.type.span)
    if (rank < len(dims) - 1) if rests else (rank != len(dims)):
        more = " or more" if rests else ""
        labels = Label(p.type.span, f"{_axes(len(dims) - rests)}{more} wanted here")
        raise error("E0303", f"{a.wanted}, but it is {a.value.type}", at, "", labels)
    shape: list[Dim] = []
    computed: list[Computed] = []
    for d in dims:
        size = a.value.shape[len(shape)] if len(shape) < rank else 0
        match d:
            case ast.Rest():
                sizes = a.value.shape[len(shape) : len(shape) + rank - (len(dims) - 1)]
                _match_rest(cx, a, d, sizes, scope)
                shape += sizes
            case ast.Name():
                shape.append(_match_name(cx, a, d, size, scope))
            case ast.Int():
                shape.append(_match_number(cx, a, d, size))
            case _:
                computed.append(Computed(d, len(shape), size, a))
                shape.append(size)
    return refine(cx, a.value, shape, at), computed


def _of_dtype(cx: Context, value: Value, p: ast.Parameter, at: Span, owner: str) -> Argument:
    """The argument as a tensor of the declared dtype."""
    assert p.type is not None
    dtype = dtype_of(cx, p.type)
    if isinstance(value, Group):
        raise error("E0307", f"{_title(p, owner)} must be {type_text(p.type)}, not a group of parameters", at)
    a = Argument(tensor(cx, value, at, None if isinstance(value, Tensor) else dtype), p, at, owner)
    if a.value.dtype != dtype:
        raise error(
            "E0302",
            f"{a.wanted}, but it is {a.value.type}",
            at,
            "",
            Label(p.type.span, f"{dtype} is wanted here"),
            help=f"write `cast(x, {dtype})` where it is meant",
            fix=f"cast({at.text}, {dtype})",
        )
    return a


def _match_rest(cx: Context, a: Argument, d: ast.Rest, sizes: tuple[Dim, ...], scope: Scope) -> None:
    """`*s`: any further axes, the same wherever it stands."""
    known = scope.names.get(d.name)
    if isinstance(known, tuple):
        if len(known) != len(sizes) or any(
            same_size(cx, s, w, a.title, a.at) is None for s, w in zip(sizes, known, strict=False)
        ):
            raise error(
                "E0301",
                f"{a.title}: the axes *{d.name} are {list(map(str, sizes))}, but {list(map(str, known))} elsewhere",
                a.at,
            )
    scope.bind(d.name, tuple(sizes), d.span)


def _match_name(cx: Context, a: Argument, d: ast.Name, size: Dim, scope: Scope) -> Dim:
    """A name that is bound by the first size that it stands for; or that is a size around the definition."""
    known = scope.names.get(d.id, MISSING)
    if known is POISON:
        known = MISSING
    elif known is MISSING:
        outer = scope.lookup(d.id)
        if outer is not MISSING:
            outer = cx.program.force(cx, outer, d.span)
        known = outer if is_size(outer) else MISSING
    if known is MISSING:
        scope.bind(d.id, size, d.span)
        return size
    told = scope.where(d.id)
    if not is_size(known):
        raise error(
            "E0307",
            f"{a.title}: `{d.id}` is a size here, not {kind(known)}",
            d.span,
            "",
            *([Label(told, f"`{d.id}` is {kind(known)} from here")] if told is not None else []),
            help="give one of the two another name",
        )
    agreed = same_size(cx, size, known, f"`{d.id}` in {a.title}", a.at)
    if agreed is None:
        raise error(
            "E0301",
            f"{a.wanted} with {d.id} = {known}, but it is {a.value.type}",
            a.at,
            f"{a.value.type}{cx.origin(a.value)}",
            *([Label(told, f"{d.id} is {known} from here")] if told is not None and told != d.span else []),
        )
    return agreed


def _match_number(cx: Context, a: Argument, d: ast.Int, size: Dim) -> Dim:
    agreed = same_size(cx, size, d.value, a.title, a.at)
    if agreed is None:
        raise error(
            "E0301",
            f"{a.wanted}, but {size} is not {d.value}",
            a.at,
            f"{a.value.type}{cx.origin(a.value)}",
            Label(d.span, f"{d.value} is wanted here"),
        )
    return agreed
