"""Element by element: functions of one value, of several that meet, choices and conversions."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ....compiler.types.sizes import product
from ....compiler.types.tensors import FLOATS
from ...onnx.importing.refusals import Refused
from ...onnx.importing.values import Value, known, number
from ..call import OPERATORS, Call, operator

# what ONNX has under another name, without arguments
_AS_ONNX = {
    "abs": "Abs", "acos": "Acos", "asin": "Asin", "atan": "Atan", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh",
    "erf": "Erf", "exp": "Exp", "floor": "Floor", "isnan": "IsNaN", "log": "Log", "mish": "Mish", "neg": "Neg",
    "logical_not": "Not", "bitwise_not": "Not", "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round",
    "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
    "selu": "Selu", "silu": "Swish", "hardswish": "HardSwish",
}  # fmt: skip
_UNARY = {
    "rsqrt": "rsqrt({0})", "log1p": "log1p({0})", "expm1": "expm1({0})", "erfc": "erfc({0})", "log2": "log2({0})",
    "square": "{0} * {0}", "log_sigmoid": "{0} |> log_sigmoid", "relu6": "{0} |> clip(0, 6)",
    "hardsigmoid": "{0} |> hard_sigmoid", "isfinite": "isfinite({0})",
}  # fmt: skip
_BINARY = {"mul": "{0} * {1}", "maximum": "maximum({0}, {1})", "minimum": "minimum({0}, {1})"}
_COMPARISON = {
    "eq": "{0} == {1}", "ne": "{0} != {1}", "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}",
    "ge": "{0} >= {1}", "logical_and": "{0} and {1}", "logical_or": "{0} or {1}", "bitwise_and": "{0} and {1}",
    "bitwise_or": "{0} or {1}", "__and__": "{0} and {1}",
    "__or__": "{0} or {1}", "logical_xor": "{0} != {1}",
}  # fmt: skip


def _as_onnx(op: str, n: Call) -> Value:
    _check_plain(n)
    made: Value = n.as_onnx(op, n.x)
    return made


def _check_plain(n: Call) -> None:
    settings = [name for name, v in n.attributes.items() if not isinstance(v, Value) and v is not None]
    if settings:
        raise Refused(f"its setting `{settings[0]}` is not supported")


def _unary(template: str, n: Call) -> Value:
    _check_plain(n)
    return n.emit(template, n.x)


def _binary(template: str, n: Call) -> Value:
    if n.dtype == "bool":
        raise Refused("arithmetic of bools is not supported")
    return n.emit(template, *n.meet(n.operand("self"), n.operand("other")))


def _comparison(template: str, n: Call) -> Value:
    values = [v for v in (n.arg("self"), n.arg("other")) if isinstance(v, Value)]
    dtype = max((v.dtype for v in values), key=_RANK.index)
    if isinstance(n.arg("other"), float) and dtype not in FLOATS:
        raise Refused("a whole number is compared with one that is none")
    if "and" in template or "or" in template:
        if dtype != "bool":
            raise Refused("logic is of bools")
    return n.emit(template, *n.meet(n.operand("self", dtype), n.operand("other", dtype)))


_RANK = ["bool", "i32", "i64", "f32", "f64"]
OPERATORS.update({op: partial(_as_onnx, to) for op, to in _AS_ONNX.items()})
OPERATORS.update({op: partial(_unary, template) for op, template in _UNARY.items()})
OPERATORS.update({op: partial(_binary, template) for op, template in _BINARY.items()})
OPERATORS.update({op: partial(_comparison, template) for op, template in _COMPARISON.items()})


@operator("add", "sub", "rsub")
def add(n: Call) -> Value:
    """self + alpha other, self - alpha other; `rsub` has the two in turn."""
    a, b = n.operand("self"), n.operand("other")
    if n.dtype == "bool":
        raise Refused("arithmetic of bools is not supported")
    if n.arg("alpha") not in (None, 1):
        scale = known(n.arg("alpha"), n.dtype)
        b = n.emit("{1} * {0}", *n.meet(b, scale)) if not b.is_single else known(b.known * n.arg("alpha"), n.dtype)
    if n.op == "rsub":
        a, b = b, a
    return n.emit("{0} + {1}" if n.op == "add" else "{0} - {1}", *n.meet(a, b))


@operator("div", "true_divide", "floor_divide")
def divide(n: Call) -> Value:
    mode = "floor" if n.op == "floor_divide" else n.arg("rounding_mode")
    a, b = n.meet(n.operand("self"), n.operand("other"))
    if mode is None:
        return n.emit("{0} / {1}", a, b)
    if mode == "floor" and n.dtype not in FLOATS:
        return n.emit("{0} // {1}", a, b)
    raise Refused(f"the rounding mode `{mode}` is not supported for {n.dtype}")


@operator("pow")
def power(n: Call) -> Value:
    if isinstance(n.arg("exponent"), int | float) and isinstance(n.arg("self"), Value) and n.dtype in FLOATS:
        e = n.arg("exponent")
        return n.emit(f"{{0}}^{int(e) if float(e).is_integer() else number(e, n.dtype)}", n.operand("self"))
    if n.dtype not in FLOATS:
        raise Refused("powers of whole numbers are not supported")
    return n.emit("{0} ^ {1}", *n.meet(n.operand("self"), n.operand("exponent")))


@operator("leaky_relu", "elu", "gelu")
def activation(n: Call) -> Value:
    """What has a setting, by ONNX's operator."""
    if n.op == "elu" and (n.arg("scale") != 1 or n.arg("input_scale") != 1):
        raise Refused("it is scaled")
    made: Value
    if n.op == "gelu":
        made = n.as_onnx("Gelu", n.x, approximate=n.arg("approximate"))
    elif n.op == "elu":
        made = n.as_onnx("Elu", n.x, alpha=float(n.arg("alpha")))
    else:
        made = n.as_onnx("LeakyRelu", n.x, alpha=n.arg("negative_slope"))
    return made


@operator("glu")
def gated(n: Call) -> Value:
    """One half by the sigmoid of the other."""
    a, b = n.text.emit_results(f"split({{0}}, 2, axis = {n.axis('dim')})", n.x, count=2, stem=n.stem)
    return n.emit("{0} * sigmoid({1})", a, b)


@operator("softplus")
def softplus(n: Call) -> Value:
    """Above the threshold PyTorch takes x itself, which differs by less than 1e-8."""
    if n.arg("beta") != 1 or n.arg("threshold") < 20:
        raise Refused("only softplus with beta 1 and a threshold of 20 or more is supported")
    made: Value = n.as_onnx("Softplus", n.x)
    return made


@operator("prelu")
def prelu(n: Call) -> Value:
    slope = n.tensor("weight")
    if slope.rank == 1 and n.x.rank > 1:
        slope = n.reshaped(n.text.placed(slope), [1, slope.shape[0], *[1] * (n.x.rank - 2)])
    made: Value = n.as_onnx("PRelu", n.x, slope)
    return made


@operator("clamp", "clamp_min", "clamp_max", "hardtanh")
def clamp(n: Call) -> Value:
    low = n.arg("min_val" if n.op == "hardtanh" else "min")
    high = n.arg("max_val" if n.op == "hardtanh" else "max")
    if any(isinstance(v, Value) for v in (low, high)):
        raise Refused("bounds that are tensors are not supported")
    if n.op == "hardtanh" and (low, high) == (-1, 1):
        return n.emit("{0} |> hard_tanh", n.x)
    bounds = {name: v for name, v in (("min", low), ("max", high)) if v is not None}
    made: Value = n.as_onnx("Clip", n.x, **bounds)
    return made


@operator("where")
def where(n: Call) -> Value:
    return n.emit("where({0}, {1}, {2})", *n.meet(n.tensor("condition"), n.operand("self"), n.operand("other")))


@operator("masked_fill")
def masked_fill(n: Call) -> Value:
    return n.emit("where({0}, {1}, {2})", *n.meet(n.tensor("mask"), n.operand("value"), n.operand("self")))


@operator("to", "_to_copy", "type_as", "float", "double", "long", "int", "bool")
def to(n: Call) -> Value:
    if n.x.dtype in FLOATS and n.dtype not in FLOATS and n.dtype != "bool":
        return n.emit(f"cast({{0}}, {n.dtype})", n.x)
    return n.cast(n.x, n.dtype)


@operator("contiguous", "clone", "alias", "lift_fresh_copy", "lift_fresh", "lift")
def same(n: Call) -> Value:
    return n.x


@operator("detach")
def detach(n: Call) -> Value:
    return n.emit("stop_grad({0})", n.x)


@operator("dropout", "feature_dropout")
def dropout(n: Call) -> Value:
    """Nothing in inference; a `p` of 0 stays, so that the text says where the module drops."""
    if not n.arg("train"):
        return n.x
    name = "dropout" if n.op == "dropout" else "spatial_dropout"
    return n.emit(f"{{0}} |> {name}(p = {number(n.arg('p'), 'f32')})", n.x)


@operator("zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like")
def filled(n: Call) -> Value:
    value: Any = n.arg("fill_value")
    if value is None:
        value = 0 if "zeros" in n.op else 1
    shape = n.arg("size") if n.arg("size") is not None else n.x.shape
    if not isinstance(value, bool | int | float):
        raise Refused("what fills must be a number")
    if product(shape) == 1:
        return known(np.full([1] * len(shape), value), n.dtype)
    listed = ", ".join(map(str, shape))
    y = n.emit(f"broadcast(cast({number(value, n.dtype)}, {n.dtype}), [{listed}])")
    if value == 0:
        n.zeros.add(y.name)
    return y


@operator("scalar_tensor")
def scalar(n: Call) -> Value:
    return known(n.arg("s"), n.dtype)


@operator("arange")
def arange(n: Call) -> Value:
    start, end, step = n.arg("start") or 0, n.arg("end"), n.arg("step")
    if step not in (None, 1) or isinstance(start, float) or isinstance(end, float):
        if all(isinstance(v, int | float) for v in (start, end, step)):
            return known(np.arange(start, end, step), n.dtype)
        raise Refused("a range to a size goes in steps of 1")
    y = n.cast(n.emit(f"iota({end - start})"), n.dtype)
    return y if start == 0 else n.emit(f"{{0}} + {start}", y)
