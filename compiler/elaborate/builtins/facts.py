"""Facts about values and models, conditions on sizes, gradients, and random draws."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from ....dsl import ast
from ....dsl.errors import error
from ....dsl.source import Span
from ...types.sizes import Dim, Size
from ...types.tensors import FLOATS, INTS
from .. import scans
from ..context import Context
from ..frames import NotRolled
from ..operations import binary, elementwise, operands
from ..shapes import sizes, tensor
from ..values import (
    REQUIRED,
    Arguments,
    Builtin,
    Defined,
    Group,
    Results,
    Shared,
    SizeCondition,
    Tensor,
    Value,
    is_static,
    kind,
)
from ..variables import draw_key, group, meet
from .elementwise import plain
from .reductions import axis_number

KEY_STEP = 16_777_619  # odd, so that a `key` seldom meets a seed, which counts in 2^32, or a step, which counts in 1


def call_require(cx: Context, a: Arguments) -> Value:
    """A condition on sizes: an error where it is known to be false, a guard where only run time can say."""
    match a.condition:
        case bool():
            if not a.condition:
                raise error("E0203", _told(a), a.span)
        case SizeCondition(clauses=clauses):
            for clause in clauses:
                cx.demand(clause, _told(a), a.span)
        case _:
            raise error("E0307", f"`require` takes a condition on sizes, not {kind(a.condition)}", a.at("condition"))
    return a.condition


def call_warn(cx: Context, a: Arguments) -> Value:
    """A warning at the user's call where the condition is known to hold."""
    if not isinstance(a.condition, bool | SizeCondition):
        raise error("E0307", f"`warn` takes a condition on sizes, not {kind(a.condition)}", a.at("condition"))
    if a.condition is True:
        cx.program.warnings[f"{cx.asked() or a.span}: {_told(a)}"] = None
    return a.condition


def _told(a: Arguments) -> str:
    """The message, with each `{}` replaced by the next value."""
    text, *rest = str(a.message).split("{}")
    values = a.numbers if isinstance(a.numbers, tuple) else (a.numbers,)
    if len(values) != len(rest):
        given = "1 number is" if len(values) == 1 else f"{len(values)} numbers are"
        gaps = "1 gap" if len(rest) == 1 else f"{len(rest)} gaps"
        raise error("E0203", f"the message has {gaps} `{{}}`, but {given} given", a.at("message"))
    return text + "".join(_shown(v) + more for v, more in zip(values, rest, strict=True))


def _shown(value: Value) -> str:
    return f"[{', '.join(map(_shown, value))}]" if isinstance(value, tuple) else str(value)


def call_shape(cx: Context, a: Arguments) -> tuple[Dim, ...]:
    """The sizes of a tensor, of a list as those of the tensor it makes; a number, which need not be in the graph, has
    none."""
    x = plain(a.x)
    return () if isinstance(x, bool | int | float | Size) else tensor(cx, x, a.at("x")).shape


def call_size(cx: Context, a: Arguments) -> Dim:
    x = tensor(cx, plain(a.x), a.at("x"))
    return x.type.size if a.axis is None else x.shape[axis_number(a.axis, x.rank, a.at("axis"))]


def call_count_of(cx: Context, a: Arguments) -> Dim:
    if isinstance(a.x, Group):
        return sum(t.type.size for t in a.x.members.values())
    if isinstance(a.x, tuple):
        return len(a.x)
    return tensor(cx, plain(a.x), a.at("x")).type.size


def make_group(name: str, roles: tuple[str, ...]) -> Builtin:
    def call(cx: Context, a: Arguments) -> Group:
        return group(cx, [_root(x, name, a) for x in (a.model if isinstance(a.model, tuple) else (a.model,))], roles)

    return Builtin(name, (("model", REQUIRED),), call)


def _root(value: Value, name: str, a: Arguments) -> str:
    """The path of a model, or of a part of one."""
    match value:
        case Shared(path=path) | Defined(definition=ast.Layer(top=True, name=path)):
            return path
    raise error(
        "E0307",
        f"`{name}` takes a model or a part of one, not {kind(value)}",
        a.at("model"),
        help="a part is named by its path: `params(Net.body)`",
    )


def call_file(cx: Context, a: Arguments) -> NoReturn:
    """Constants are read by themselves, see `frozen`."""
    raise error(
        "E0206",
        "the array of a file is the whole value of a constant with a type",
        a.span,
        help='write `const t: f32[3, 3] = file("t.npy")`, and use `t`',
    )


def call_macs(cx: Context, a: Arguments) -> int:
    if not (isinstance(a.model, Defined) and isinstance(a.model.definition, ast.Layer) and a.model.definition.top):
        raise error("E0307", f"`macs` takes a model, not {kind(a.model)}", a.at("model"))
    return cx.program.macs(a.model.definition.name, a.span)


def call_grad(cx: Context, a: Arguments) -> Value:
    y = tensor(cx, plain(a.y), a.at("y"), cx.real)
    if y.rank != 0:
        raise error(
            "E0402",
            f"`grad` needs a scalar, but this is {y.type}",
            a.at("y"),
            help="reduce it first, for example with `sum` or `mean`",
        )
    if y.dtype not in FLOATS:
        raise error("E0402", f"`grad` needs a float, but this is {y.type}", a.at("y"))
    x: Value = plain(a.x)
    several = x.items if isinstance(x, Results) else x if isinstance(x, tuple) else None
    given = list(x.members.values()) if isinstance(x, Group) else [x] if several is None else list(several)
    xs: list[Tensor] = []
    for t in given:
        if not isinstance(t, Tensor) or t.dtype not in FLOATS:
            raise error("E0401", f"`grad` is with respect to float tensors, not {kind(t)}", a.at("x"))
        xs.append(t)
    if not xs:
        return x
    scans.check_grad(cx, y, xs, a.span)
    g = cx.builder.emit("grad", y.node, *(cx.here(t, a.span).node for t in xs), span=a.span)
    parts = [Tensor(cx.builder.emit("item", g, index=k, span=a.span), cx.builder) for k in range(len(xs))]
    if isinstance(x, Group):
        return x.of(dict(zip(x.members, parts, strict=True)))
    return parts[0] if several is None else Results(None, tuple(parts))


def call_stop_grad(cx: Context, a: Arguments) -> Value:
    return cx.emit("stop_grad", tensor(cx, plain(a.x), a.at("x"), cx.real), span=a.span)


def call_checkpoint(cx: Context, a: Arguments) -> Value:
    """The value, computed again in the backward pass from `given` (a tensor or a list of them)."""
    given = a.given if isinstance(a.given, tuple) else (a.given,)
    x, *others = (tensor(cx, plain(v), a.at(k), cx.real) for v, k in ((a.x, "x"), *((g, "given") for g in given)))
    return cx.emit("checkpoint", x, *others, span=a.span)


def call_across(cx: Context, a: Arguments) -> Tensor:
    """The mean over the shards of a batch; where it is not cut, what is given."""
    x = tensor(cx, plain(a.x), a.at("x"), cx.real)
    if cx.turn is not None:
        raise NotRolled
    if cx.frames:
        raise error("E0203", "shards of a batch meet between the steps of a model, not in a scan", a.span)
    return meet(cx, x, "mean", a.span)


def call_straight_through(cx: Context, a: Arguments) -> Tensor:
    hard, soft = operands(cx, a.hard, a.soft, a.span, (a.at("hard"), a.at("soft")))
    return cx.emit("straight_through", hard, soft, span=a.span)


def _draw(cx: Context, a: Arguments) -> Tensor:
    """Uniform numbers in [0, 1) of the wanted shape."""
    shape = a.shape if a.shape is not None else cx.shape
    if shape is None:
        raise error("E0203", "a random draw needs a shape here", a.span, help="write `shape = shape(x)`")
    shape = sizes(shape, a.at("shape"))
    key, site = draw_key(cx)
    if a.key is not None:
        key = cx.emit("add", key, _further(cx, a.key, a.at("key")), span=a.span)
    return cx.emit("random", key, span=a.span, shape=shape, dtype=cx.real, site=site)


def _further(cx: Context, key: Any, at: Span) -> Tensor:
    """What a whole number adds to the key of a draw, so that another number draws others."""
    n = tensor(cx, plain(key), at)
    if n.rank or n.dtype not in INTS:
        raise error("E0302", f"the `key` of a random draw is one whole number, but this is {n.type}", at)
    wide = n if n.dtype == "i64" else cx.emit("cast", n, span=at, dtype="i64")
    return cx.emit("mul", wide, cx.constant(KEY_STEP, "i64"), span=at)


def call_uniform(cx: Context, a: Arguments) -> Value:
    u = _draw(cx, a)
    s = (a.span, a.span)
    if is_static(a.lo) and a.lo == 0 and is_static(a.hi) and a.hi == 1:
        return u
    width = binary(cx, "-", a.hi, a.lo, a.span, s)
    return binary(cx, "+", binary(cx, "*", u, width, a.span, s), a.lo, a.span, s)


def call_normal(cx: Context, a: Arguments) -> Value:
    """Box and Muller 1958: sqrt(-2 ln u1) cos(2 pi u2); 1 - u keeps the logarithm finite."""
    u1, u2 = _draw(cx, a), _draw(cx, a)
    s = (a.span, a.span)

    def op(o: str, x: Tensor | int, y: Tensor | float) -> Tensor:
        return elementwise(cx, o, x, y, a.span, s)

    radius = cx.emit("sqrt", op("*", cx.emit("log", op("-", 1, u1), span=a.span), -2.0), span=a.span)
    z = op("*", radius, cx.emit("cos", op("*", u2, 2 * math.pi), span=a.span))
    return binary(cx, "+", binary(cx, "*", z, a.std, a.span, s), a.mean, a.span, s)


def call_bernoulli(cx: Context, a: Arguments) -> Tensor:
    if a.shape is None and isinstance(a.p, Tensor) and a.p.rank:
        a.values["shape"] = a.p.shape
    return elementwise(cx, "<", _draw(cx, a), a.p, a.span, (a.span, a.at("p")))
