"""Elementwise operators: a scalar function of the operands at one index, all of one shape.

Broadcasting is never implied here: it is a `broadcast` node. Each operator has the name and the meaning of the scalar
function in `loops.FUNCTIONS` (`where` is `select` there), so its value at a point is that function applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import erf, pi, sqrt
from typing import Any

import numpy as np

from ...loops.ir import Apply, Expr
from ...types.tensors import DTYPES, FLOATS, INTS, TensorType, Type
from . import require
from .calculus import Value, rule
from .op import MAP, Op, Sample
from .require import BOOL, NUMBERS


def _infer(op: str, count: int, accepts: tuple[str, ...], result: str | None) -> Callable[..., TensorType]:
    def infer(types: Sequence[Type], attrs: Any) -> TensorType:
        ts = require.tensors(op, types, count)
        require.accepted(op, ts, accepts)
        require.same_dtype(op, ts)
        require.same_shape(op, ts)
        return TensorType(result or ts[0].dtype, ts[0].shape)

    return infer


def _at(fn: str) -> Callable[..., Expr]:
    def at(node: Any, types: Sequence[Type], index: tuple[Expr, ...], read: Callable[..., Expr]) -> Expr:
        return Apply(fn, tuple(read(k, index) for k in range(len(types))), node.dtype)

    return at


def _samples(count: int, accepts: tuple[str, ...], low: float, high: float) -> tuple[Sample, ...]:
    shapes: tuple[tuple[int, ...], ...] = ((3, 4), (), (1,), (0, 3), (17,))
    main = "f32" if "f32" in accepts else accepts[0]
    others = [d for d in accepts if d != main]
    return tuple(Sample((TensorType(main, s),) * count, {}, low, high) for s in shapes) + tuple(
        Sample((TensorType(d, (2, 3)),) * count, {}, low, high) for d in others
    )


def _map(name: str, count: int, doc: str, reference: Callable[..., Any], grad: Any, *,
         accepts: tuple[str, ...] = FLOATS, result: str | None = None, low: float = -2.0, high: float = 2.0,
         commutative: bool = False) -> Op:
    return Op(
        name=name, kind=MAP, doc=doc, infer=_infer(name, count, accepts, result), at=_at(name), grad=grad,
        reference=lambda args, attrs, type: reference(*args), samples=_samples(count, accepts, low, high),
        commutative=commutative,
    )


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(erf, otypes=["f8"])(x).astype(x.dtype)


def _logistic(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))  # at most 1, so nothing overflows
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def _floordiv(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y == 0, 0, x // np.where(y == 0, 1, y)).astype(x.dtype)


def _mod(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y == 0, 0, x % np.where(y == 0, 1, y)).astype(x.dtype)


def _pow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # of exponents that are one number repeated NumPy makes a root, and pow(-inf, 1/2) is inf, not NaN: so none are
    return np.power(np.atleast_1d(x), np.array(np.atleast_1d(y), order="C")).reshape(x.shape)


def _pow_grad(dy: Value, z: Value, x: Value, y: Value) -> tuple[Value, Value]:
    """d(x^y) = y x^(y-1) dx + x^y log(x) dy, both continued to their limit where they read 0 * inf."""
    dx = y.apply("eq", 0).where(0, y * x.apply("pow", y - 1))
    log_x = x.apply("eq", 0).where(0, x.apply("log"))
    return dy * dx, dy * z * log_x


_FLAT = "the derivative of {} is zero or undefined everywhere"
_LOGIC = "{} gives a bool, and a bool has no derivative"


def _compare(name: str, doc: str, reference: Callable[..., Any], accepts: tuple[str, ...], commutative: bool) -> Op:
    grad = _LOGIC.format(require.spelled(name))
    return _map(name, 2, doc, reference, grad, accepts=accepts, result="bool", commutative=commutative)


ARITHMETIC = (
    _map("add", 2, "x + y", np.add, rule(lambda dy, z, x, y: (dy, dy)), accepts=NUMBERS, commutative=True),
    _map("sub", 2, "x - y", np.subtract, rule(lambda dy, z, x, y: (dy, -dy)), accepts=NUMBERS),
    _map("mul", 2, "x y", np.multiply, rule(lambda dy, z, x, y: (dy * y, dy * x)), accepts=NUMBERS, commutative=True),
    _map("div", 2, "x / y, IEEE 754. d(x/y) = dx / y - (x/y) dy / y", np.divide,
         rule(lambda dy, z, x, y: (dy / y, -(dy * (z / y)))), low=0.5),
    _map("floordiv", 2, "The quotient rounded to minus infinity; by zero it is 0", _floordiv,
         _FLAT.format("`//`"), accepts=INTS, low=-9, high=9),
    _map("mod", 2, "x - y (x // y): the remainder with the sign of y; by zero it is 0", _mod,
         _FLAT.format("`%`"), accepts=INTS, low=-9, high=9),
    _map("neg", 1, "-x", np.negative, rule(lambda dy, y, x: (-dy,)), accepts=NUMBERS),
    _map("abs", 1, "|x|; its derivative is sign(x), 0 at 0", np.abs,
         rule(lambda dy, y, x: (dy * x.apply("sign").apply("stop_grad"),)), accepts=NUMBERS),
    _map("sign", 1, "-1, 0 or 1; NaN of NaN", np.sign, _FLAT.format("sign"), accepts=NUMBERS),
    _map("minimum", 2, "The smaller; NaN if either is. The gradient goes to x where x < y, else to y", np.minimum,
         rule(lambda dy, z, x, y: (x.apply("lt", y).where(dy, 0), x.apply("lt", y).where(0, dy))),
         accepts=NUMBERS, commutative=False),
    _map("maximum", 2, "The larger; NaN if either is. The gradient goes to x where x > y, else to y, so that the "
         "derivative of maximum(x, 0) at 0 is 0", np.maximum,
         rule(lambda dy, z, x, y: (x.apply("gt", y).where(dy, 0), x.apply("gt", y).where(0, dy))),
         accepts=NUMBERS, commutative=False),
    _map("pow", 2, "x^y, IEEE 754 (pow(x, 0) = 1)", _pow, rule(_pow_grad), low=0.3),
)

LOGIC = (
    _compare("eq", "x == y; false when either is NaN", np.equal, DTYPES, True),
    _compare("ne", "x != y; true when either is NaN", np.not_equal, DTYPES, True),
    _compare("lt", "x < y", np.less, NUMBERS, False),
    _compare("le", "x <= y", np.less_equal, NUMBERS, False),
    _compare("gt", "x > y", np.greater, NUMBERS, False),
    _compare("ge", "x >= y", np.greater_equal, NUMBERS, False),
    _map("and", 2, "Both", np.logical_and, _LOGIC.format("`and`"), accepts=BOOL, commutative=True),
    _map("or", 2, "Either or both", np.logical_or, _LOGIC.format("`or`"), accepts=BOOL, commutative=True),
    _map("not", 1, "Not", np.logical_not, _LOGIC.format("`not`"), accepts=BOOL),
    _map("isfinite", 1, "Neither NaN nor infinite", np.isfinite, _LOGIC.format("isfinite"), result="bool"),
)

ROUNDING = (
    _map("floor", 1, "The largest whole number that is not above x", np.floor, _FLAT.format("floor")),
    _map("ceil", 1, "The smallest whole number that is not below x", np.ceil, _FLAT.format("ceil")),
    _map("round", 1, "The nearest whole number, half to even", np.rint, _FLAT.format("round")),
)

TRANSCENDENTAL = (
    _map("exp", 1, "e^x", np.exp, rule(lambda dy, y, x: (dy * y,))),
    _map("log", 1, "The natural logarithm; -inf at 0, NaN below", np.log, rule(lambda dy, y, x: (dy / x,)), low=0.1),
    _map("log1p", 1, "log(1 + x), accurate near 0", np.log1p, rule(lambda dy, y, x: (dy / (x + 1),)), low=-0.9),
    _map("expm1", 1, "e^x - 1, accurate near 0", np.expm1, rule(lambda dy, y, x: (dy * (y + 1),))),
    _map("sqrt", 1, "The square root; d sqrt(x) = dx / (2 sqrt(x))", np.sqrt,
         rule(lambda dy, y, x: (dy * (0.5 / y),)), low=0.1),
    _map("rsqrt", 1, "1 / sqrt(x); its derivative is -(1/2) y^3", lambda x: 1 / np.sqrt(x),
         rule(lambda dy, y, x: (dy * (-0.5 * (y * y * y)),)), low=0.1),
    _map("sin", 1, "sin x", np.sin, rule(lambda dy, y, x: (dy * x.apply("cos"),))),
    _map("cos", 1, "cos x", np.cos, rule(lambda dy, y, x: (-(dy * x.apply("sin")),))),
    _map("tanh", 1, "The hyperbolic tangent; its derivative is 1 - y^2", np.tanh,
         rule(lambda dy, y, x: (dy * (1 - y * y),))),
    _map("erf", 1, "2/sqrt(pi) times the integral of exp(-t^2) from 0 to x", _erf,
         rule(lambda dy, y, x: (dy * (2 / sqrt(pi) * (-(x * x)).apply("exp")),))),
    _map("logistic", 1, "1 / (1 + exp(-x)); its derivative is y (1 - y)", _logistic,
         rule(lambda dy, y, x: (dy * (y * (1 - y)),))),
)


def _where_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    ts = require.tensors("where", types, 3)
    require.accepted("where", ts[:1], BOOL)
    require.same_dtype("where", ts[1:], first=1)
    require.same_shape("where", ts)
    return ts[1]


WHERE = Op(
    name="where", kind=MAP, doc="x where the condition holds, else y; the condition carries no gradient",
    infer=_where_infer, at=_at("select"), reference=lambda args, attrs, type: np.where(*args),
    grad=rule(lambda dy, z, c, x, y: (None, c.where(dy, 0), c.where(0, dy))),
    samples=tuple(
        Sample((TensorType("bool", s), TensorType(d, s), TensorType(d, s)), {})
        for s, d in (((3, 4), "f32"), ((), "f32"), ((0,), "f64"), ((5,), "i32"), ((5,), "bool"))
    ),
)


def convert(x: np.ndarray, dtype: str) -> np.ndarray:
    """What `cast` means: float to int truncates and saturates, NaN gives 0; anything to bool is != 0."""
    target: Any = np.dtype(NUMPY[dtype])
    if target.kind != "i" or x.dtype.kind != "f":
        return (x != 0) if dtype == "bool" else x.astype(target)
    limits = np.iinfo(target)
    inside = np.where(np.isfinite(x) & (np.abs(x) < 2.0 ** (8 * target.itemsize - 1)), x, 0).astype(target)
    over = 2.0 ** (8 * target.itemsize - 1)
    return np.where(x >= over, limits.max, np.where(x <= -over, limits.min, inside)).astype(target)


NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.bool_}


def _cast_infer(types: Sequence[Type], attrs: Any) -> TensorType:
    (t,) = require.tensors("cast", types, 1)
    return t.with_dtype(attrs["dtype"])


def _cast_grad(dy: Value, y: Value, x: Value) -> tuple[Value | None]:
    if x.type.dtype not in FLOATS:
        return (None,)
    return (dy.apply("cast", dtype=x.type.dtype),)


CAST = Op(
    name="cast", kind=MAP, infer=_cast_infer, at=_at("cast"), grad=rule(_cast_grad),
    doc="Conversion: to int truncates, saturates, and gives 0 for NaN; to bool is != 0",
    reference=lambda args, attrs, type: convert(args[0], attrs["dtype"]),
    samples=tuple(
        Sample((TensorType(a, (7,)),), {"dtype": b}, -9, 9)
        for a, b in (("f32", "f64"), ("f64", "f32"), ("f32", "i32"), ("f64", "i64"), ("i32", "f32"), ("i64", "i32"),
                     ("bool", "f32"), ("bool", "i32"), ("f32", "bool"), ("i32", "bool"), ("i32", "i64"))
    ),
)

ALL = (*ARITHMETIC, *LOGIC, *ROUNDING, *TRANSCENDENTAL, WHERE, CAST)
