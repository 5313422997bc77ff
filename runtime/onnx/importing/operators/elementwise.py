"""Element by element: functions of one value, of several that meet, choices and conversions."""

from __future__ import annotations

from functools import partial

from .....compiler.types.tensors import FLOATS
from ..node import OPERATORS, Node, operator
from ..refusals import Refused
from ..types import dtype_of
from ..values import Value, known, number
from .products import is_weight

_UNARY = {
    "Abs": "abs({0})", "BitwiseNot": "bit_not({0})",
    "Acos": "acos({0})", "Acosh": "acosh({0})", "Asin": "asin({0})", "Asinh": "asinh({0})",
    "Atan": "atan({0})", "Atanh": "atanh({0})", "Ceil": "ceil({0})", "Cos": "cos({0})", "Cosh": "cosh({0})",
    "Erf": "erf({0})", "Exp": "exp({0})", "Floor": "floor({0})", "HardSwish": "{0} * hard_sigmoid({0})",
    "IsNaN": "{0} != {0}", "Log": "log({0})", "Mish": "{0} |> mish", "Neg": "-{0}", "Not": "not {0}",
    "Reciprocal": "1 / {0}", "Relu": "{0} |> relu", "Round": "round({0})", "Sigmoid": "{0} |> sigmoid",
    "Sign": "sign({0})", "Sin": "sin({0})", "Sinh": "sinh({0})", "Softplus": "{0} |> softplus",
    "Softsign": "{0} |> softsign", "Sqrt": "sqrt({0})", "Tan": "tan({0})", "Tanh": "{0} |> tanh",
}  # fmt: skip
_BINARY = {
    "Sub": "{0} - {1}", "Mul": "{0} * {1}", "And": "{0} and {1}", "Or": "{0} or {1}",
    "Xor": "{0} != {1}", "Equal": "{0} == {1}", "Greater": "{0} > {1}", "GreaterOrEqual": "{0} >= {1}",
    "BitwiseAnd": "bit_and({0}, {1})", "BitwiseOr": "bit_or({0}, {1})", "BitwiseXor": "bit_xor({0}, {1})",
    "Less": "{0} < {1}", "LessOrEqual": "{0} <= {1}",
}  # fmt: skip


def _unary(template: str, n: Node) -> Value:
    return n.emit(template, n.x)


def _binary(template: str, n: Node) -> Value:
    return n.emit(template, *n.meet(*_operands(n)))


OPERATORS.update({op: partial(_unary, template) for op, template in _UNARY.items()})
OPERATORS.update({op: partial(_binary, template) for op, template in _BINARY.items()})


def _operands(n: Node) -> list[Value]:
    """The inputs; before opset 7 the second stood at an axis of the first, where `broadcast` said so."""
    a, b = n.input(0), n.input(1)
    if n.attribute("broadcast", 0) and b.rank < a.rank:
        axis = n.attribute("axis", a.rank - b.rank) % max(a.rank, 1)
        behind = a.rank - axis - b.rank
        if behind > 0:
            shape = (*b.shape, *(1,) * behind)
            b = known(b.known.reshape(shape), b.dtype, b.origin) if b.known is not None else n.reshaped(b, shape)
    return [a, b]


@operator("Add")
def add(n: Node) -> Value:
    """A bias that is added to what a dense layer gives is that layer's."""
    for y, bias, once in ((n.input(0), n.input(1), n.once[0]), (n.input(1), n.input(0), n.once[1])):
        if once and is_weight(bias) and bias.known is not None and bias.shape == y.shape[-1:]:
            if n.text.add_bias(y, bias.known):
                return y
    return _binary("{0} + {1}", n)


@operator("BitShift")
def shift(n: Node) -> Value:
    name = {"LEFT": "shift_left", "RIGHT": "shift_right"}.get(str(n.needed("direction")))
    if name is None:
        raise Refused("it shifts LEFT or RIGHT")
    return n.emit(f"{name}({{0}}, {{1}})", *n.meet(n.input(0), n.input(1)))


@operator("Div")
def divide(n: Node) -> Value:
    """Of whole numbers the quotient is cut off, where `//` rounds down."""
    a, b = n.meet(*_operands(n))
    if n.x.dtype in FLOATS:
        return n.emit("{0} / {1}", a, b)
    return n.emit("(abs({0}) // abs({1})) * (sign({0}) * sign({1}))", a, b)


@operator("Mod")
def modulo(n: Node) -> Value:
    """With `fmod` the result has the sign of the dividend, else that of the divisor."""
    a, b = n.meet(n.input(0), n.input(1))
    if not n.attribute("fmod", 0):
        return n.emit("{0} % {1}", a, b)
    return n.emit("sign({0}) * (abs({0}) % abs({1}))", a, b)


@operator("Pow")
def power(n: Node) -> Value:
    a, b = n.input(0), n.input(1)
    if b.is_single and b.known is not None and b.dtype != a.dtype:
        exponent = b.known.reshape(-1)[0]
        if a.dtype in FLOATS or float(exponent).is_integer():
            b = known(b.known.astype("float64" if a.dtype in FLOATS else "int64"), a.dtype)
    if a.dtype != b.dtype:
        if a.dtype in FLOATS:
            b = n.cast(b, a.dtype)
        else:
            x, y = n.meet(n.cast(a, "f64"), n.cast(b, "f64"))
            return n.emit(f"cast({{0}} ^ {{1}}, {a.dtype})", x, y)
    return n.emit("{0} ^ {1}", *n.meet(a, b))


@operator("Max", "Min", "Sum", "Mean")
def of_several(n: Node) -> Value:
    values = [v for v in n.inputs if v is not None]
    total = values[0]
    template = {"Max": "maximum({0}, {1})", "Min": "minimum({0}, {1})"}.get(n.op, "{0} + {1}")
    for v in values[1:]:
        total = n.emit(template, *n.meet(total, v))
    if n.op == "Mean":
        total = n.emit(f"{{0}} / {len(values)}", total)
    return total if len(values) > 1 or total.name else n.emit("{0}", total)


@operator("Clip")
def clip(n: Node) -> Value:
    """Bounds are numbers, scalars of run time, or none; where the lower is above the upper, the upper holds."""
    bounds: list[Value | None] = []
    for k, name in ((1, "min"), (2, "max")):
        if name in n.attributes:
            bounds.append(known(n.attributes[name], n.x.dtype))
        else:
            bounds.append(n.input(k) if n.has(k) else None)
    low, high = bounds
    if all(v is None or v.is_single for v in bounds):
        texts = [None if v is None or v.known is None else number(v.known.reshape(-1)[0], v.dtype) for v in bounds]
        if texts == ["0.0", "6.0"]:
            return n.emit("{0} |> clip(0, 6)", n.x)
        if low is not None and high is not None and _value(low) <= _value(high):
            return n.emit(f"{{0}} |> clip({texts[0]}, {texts[1]})", n.x)
    y = n.x
    if low is not None:
        y = n.emit("maximum({0}, {1})", *n.meet(y, low))
    if high is not None:
        y = n.emit("minimum({0}, {1})", *n.meet(y, high))
    return y if y is not n.x else n.emit("{0}", n.x)


def _value(v: Value) -> float:
    assert v.known is not None
    return float(v.known.reshape(-1)[0])


@operator("Where")
def where(n: Node) -> Value:
    return n.emit("where({0}, {1}, {2})", *n.meet(n.input(0), n.input(1), n.input(2)))


@operator("Cast", "CastLike")
def cast(n: Node) -> Value:
    dtype = n.input(1).dtype if n.op == "CastLike" else dtype_of(n.needed("to"))
    return n.x if n.x.dtype == dtype else n.cast(n.x, dtype)


@operator("Identity")
def identity(n: Node) -> Value:
    return n.x


@operator("Dropout")
def dropout(n: Node) -> list[Value]:
    """In inference it is nothing, and its mask keeps everything."""
    if n.has(2) and bool(n.known(2, "whether it is training").reshape(-1)[0]):
        ratio = n.known(1, "the ratio").reshape(-1)[0] if n.has(1) else 0.5
        if float(ratio):
            raise Refused(
                "it drops by chance, with numbers that no two programs share: export the network for inference"
            )
    results = [n.x]
    if len(n.outputs) > 1:
        dtype = "bool" if n.version >= 10 else n.x.dtype
        one = known(True, "bool") if dtype == "bool" else known(1, dtype)
        results.append(n.emit(f"broadcast({{0}}, [{', '.join(map(str, n.x.shape))}])", one))
    return results


@operator("PRelu")
def prelu(n: Node) -> Value:
    x, slope = n.input(0), n.input(1)
    if slope.rank < x.rank and slope.rank == 1 and n.version < 7:
        slope = n.reshaped(slope, (*slope.shape, *(1,) * (x.rank - 2)))
    x, slope = n.meet(x, slope)
    return n.emit("where({0} > 0, {0}, {1} * {0})", x, slope)


@operator("LeakyRelu")
def leaky_relu(n: Node) -> Value:
    return n.emit(f"{{0}} |> leaky_relu({number(n.attribute('alpha', 0.01), 'f32')})", n.x)


@operator("Elu")
def elu(n: Node) -> Value:
    alpha = n.attribute("alpha", 1.0)
    return n.emit("{0} |> elu" + (f"({number(alpha, 'f32')})" if alpha != 1 else ""), n.x)


@operator("Selu")
def selu(n: Node) -> Value:
    alpha, gamma = n.attribute("alpha", 1.67326319), n.attribute("gamma", 1.05070102)
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.0507010) < 1e-6:
        return n.emit("{0} |> selu", n.x)
    return n.emit(f"{number(gamma, 'f32')} * elu({{0}}, {number(alpha, 'f32')})", n.x)


@operator("Gelu")
def gelu(n: Node) -> Value:
    return n.emit("{0} |> gelu" if n.attribute("approximate", "none") == "none" else "{0} |> gelu_tanh", n.x)


@operator("Swish")
def swish(n: Node) -> Value:
    alpha = n.attribute("alpha", 1.0)
    if alpha == 1:
        return n.emit("{0} |> silu", n.x)
    return n.emit(f"{{0}} * sigmoid({number(alpha, 'f32')} * {{0}})", n.x)


@operator("HardSigmoid")
def hard_sigmoid(n: Node) -> Value:
    alpha, beta = number(n.attribute("alpha", 0.2), "f32"), number(n.attribute("beta", 0.5), "f32")
    return n.emit(f"clip({alpha} * {{0}} + {beta}, 0, 1)", n.x)


@operator("Shrink")
def shrink(n: Node) -> Value:
    bias, bound = number(n.attribute("bias", 0.0), n.x.dtype), number(n.attribute("lambd", 0.5), "f32")
    return n.emit(f"where({{0}} < -{bound}, {{0}} + {bias}, where({{0}} > {bound}, {{0}} - {bias}, 0))", n.x)


@operator("IsInf")
def is_infinite(n: Node) -> Value:
    positive, negative = n.attribute("detect_positive", 1), n.attribute("detect_negative", 1)
    tests = [*(["{0} == inf"] if positive else []), *(["{0} == -inf"] if negative else [])]
    return n.emit(" or ".join(tests) if tests else "{0} != {0} and {0} == {0}", n.x)
