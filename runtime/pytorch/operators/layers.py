"""Layers of the library where their parameters are theirs alone, else the formulas; pooling and attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...onnx.importing.operators.normalisation import per_channel
from ...onnx.importing.refusals import Refused
from ...onnx.importing.values import Value, number
from ..call import Call, is_learned, operator


def _eps(n: Call) -> float:
    """The argument `eps`; without one that of f32."""
    given = n.arg("eps")
    return float(np.finfo(np.float32).eps) if given is None else float(given)


def _eps_setting(n: Call) -> str:
    """`eps` as the library takes it, where it is not 1e-5."""
    return "" if _eps(n) == 1e-5 else f"eps = {number(_eps(n), 'f32')}"


def _written(name: str, *arguments: str) -> str:
    listed = ", ".join(a for a in arguments if a)
    return f"{name}({listed})" if listed else name


@operator("linear")
def linear(n: Call) -> Value:
    x, w, b = n.tensor("input"), n.tensor("weight"), n.maybe("bias")
    if is_learned(w, b):
        return n.layer(x, _written("Dense", str(w.shape[0]), "" if b else "bias = false"), {"W": w, "b": b})
    y = n.emit("{0} @ {1}.T", x, n.text.placed(w))
    return y if b is None else n.emit("{0} + {1}", y, n.text.placed(b))


@operator("matmul", "bmm", "mm")
def matmul(n: Call) -> Value:
    made: Value = n.as_onnx("MatMul", *n.inputs)
    return made


@operator("addmm", "baddbmm")
def addmm(n: Call) -> Value:
    if n.arg("alpha") != 1 or n.arg("beta") != 1:
        raise Refused("it is scaled")
    names = ("mat1", "mat2") if n.op == "addmm" else ("batch1", "batch2")
    y = n.emit("{0} @ {1}", *(n.text.placed(n.tensor(k)) for k in names))
    return n.emit("{0} + {1}", *n.meet(y, n.text.placed(n.tensor("self"))))


@operator("einsum")
def einsum(n: Call) -> Value:
    made: Value = n.as_onnx("Einsum", *n.arg("tensors"), equation=n.arg("equation"))
    return made


@operator("embedding")
def embedding(n: Call) -> Value:
    w, index = n.tensor("weight"), n.cast(n.tensor("indices"), "i32")
    if n.arg("scale_grad_by_freq") or n.arg("sparse"):
        raise Refused("gradients by frequency, and sparse ones, are not supported")
    if is_learned(w):
        y = n.layer(index, f"Embedding({w.shape[0]}, {w.shape[1]})", {"W": w})
    else:
        y = n.emit("gather({0}, {1})", n.text.placed(w), index)
    padding = n.arg("padding_idx")
    if padding in (None, -1):
        return y
    return n.emit(f"where(expand({{0}} == {padding}, {index.rank}), stop_grad({{1}}), {{1}})", index, y)


# --- convolutions and pooling


def _each(value: Any, count: int, default: list[int] | None = None) -> list[int]:
    """A setting for each axis of space."""
    listed = [value] if isinstance(value, int) else list(value or default or [])
    if not all(isinstance(v, int) for v in listed):
        raise Refused("its settings must be numbers that are known")
    return listed * count if len(listed) == 1 else listed


@operator("conv1d", "conv2d", "conv3d")
def conv(n: Call) -> Value:
    pad = n.arg("padding")
    if isinstance(pad, str):
        spatial = n.tensor("weight").rank - 2
        kernel = _each(list(n.tensor("weight").shape[2:]), spatial)
        reach = zip(kernel, _each(n.arg("dilation"), spatial), strict=True)
        both = [(k - 1) * d if pad == "same" else 0 for k, d in reach]
        return _slid(n, "Conv", [*(r // 2 for r in both), *(r - r // 2 for r in both)])
    return _slid(n, "Conv", _each(pad, n.x.rank - 2) * 2)


@operator("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(n: Call) -> Value:
    spatial = n.x.rank - 2
    more = _each(n.arg("output_padding"), spatial)
    return _slid(n, "ConvTranspose", _each(n.arg("padding"), spatial) * 2, output_padding=more)


def _slid(n: Call, op: str, pads: list[int], **more: Any) -> Value:
    """A convolution by ONNX's operator; `pads` are those before each axis of space and then those behind."""
    x, w, spatial = n.tensor("input"), n.tensor("weight"), n.tensor("weight").rank - 2
    _check_batch(x, spatial)
    made: Value = n.as_onnx(
        op, x, w, n.maybe("bias"), pads=pads, strides=_each(n.arg("stride"), spatial),
        dilations=_each(n.arg("dilation"), spatial), group=n.arg("groups"), **more,
    )  # fmt: skip
    return made


def _check_batch(x: Value, spatial: int) -> None:
    if x.rank != spatial + 2:
        raise Refused("an input without an axis for the batch is not supported")


@operator("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
def pool(n: Call) -> Value:
    spatial = int(n.op[-2])
    x = n.x
    _check_batch(x, spatial)
    kernel = _each(n.arg("kernel_size"), spatial)
    settings: dict[str, Any] = {
        "kernel_shape": kernel, "strides": _each(n.arg("stride"), spatial, kernel),
        "pads": _each(n.arg("padding"), spatial) * 2, "ceil_mode": int(n.arg("ceil_mode")),
    }  # fmt: skip
    made: Value
    if n.op.startswith("max"):
        made = n.as_onnx("MaxPool", x, **settings, dilations=_each(n.arg("dilation"), spatial))
        return made
    if n.arg("divisor_override") is not None:
        raise Refused("`divisor_override` is not supported")
    padded = n.arg("count_include_pad") and any(settings["pads"])
    made = n.as_onnx("AveragePool", x, **settings, count_include_pad=int(padded))
    return made


@operator("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def adaptive_avg_pool(n: Call) -> Value:
    return _adaptive(n, "adaptive_avg_pool")


@operator("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(n: Call) -> Value:
    return _adaptive(n, "adaptive_max_pool")


def _adaptive(n: Call, name: str) -> Value:
    spatial = int(n.op[-2])
    wanted = _each(n.arg("output_size"), spatial)
    _check_batch(n.x, spatial)
    return n.emit(f"{{0}} |> {name}({wanted[0] if len(set(wanted)) == 1 else wanted})", n.x)


@operator("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def upsample_nearest(n: Call) -> Value:
    """Each element several times, where that is a whole number."""
    spatial = n.x.rank - 2
    if n.arg("output_size") is not None:
        pairs = list(zip(n.arg("output_size"), n.x.shape[2:], strict=True))
        if any(w % s != 0 for w, s in pairs):
            raise Refused("only whole factors are supported")
        factors = [w // s for w, s in pairs]
    else:
        factors = [int(f) for f in n.arg("scale_factors")]
        if factors != list(n.arg("scale_factors")):
            raise Refused("only whole factors are supported")
    places = ["i", "j", "l"][:spatial]
    sizes = [f"{p} in 0..{d * f}" for p, d, f in zip(places, n.x.shape[2:], factors, strict=True)]
    read = [f"{p} // {f}" for p, f in zip(places, factors, strict=True)]
    (y,) = n.emit_whole(f"{{r0}}[b, c, {', '.join(sizes)}] = {{0}}[b, c, {', '.join(read)}]", n.x)
    return y


# --- normalisation


@operator("batch_norm")
def batch_norm(n: Call) -> Value:
    x, w, b = n.tensor("input"), n.maybe("weight"), n.maybe("bias")
    mean, variance = n.maybe("running_mean"), n.maybe("running_var")
    if mean is None or variance is None:
        raise Refused("without running averages, `track_running_stats = False`, it is not supported")
    if not n.arg("training"):
        mu, var = per_channel(n, mean), per_channel(n, variance)
        y = n.emit(f"({{0}} - {{1}}) / sqrt({{2}} + {number(_eps(n), 'f32')})", x, mu, var)
        return _scaled(n, y, w, b)
    if w is None or b is None or not is_learned(w, b, mean, variance):
        raise Refused("with `affine = False`, or called twice, it is not supported")
    momentum = n.arg("momentum")
    if not momentum:
        raise Refused("an average of all batches, `momentum = None`, is not supported")
    more = "" if momentum == 0.1 else f"momentum = {number(momentum, 'f32')}"
    arrays = {"gamma": w, "beta": b, "running_mean": mean, "running_var": variance}
    return n.layer(x, _written("BatchNorm", more, _eps_setting(n)), arrays)


def _scaled(n: Call, y: Value, w: Value | None, b: Value | None) -> Value:
    """By what each channel has learned."""
    y = y if w is None else n.emit("{0} * {1}", y, per_channel(n, w))
    return y if b is None else n.emit("{0} + {1}", y, per_channel(n, b))


@operator("layer_norm", "rms_norm")
def layer_norm(n: Call) -> Value:
    x, w, b = n.tensor("input"), n.maybe("weight"), n.maybe("bias")
    axes = len(n.arg("normalized_shape"))
    name = "LayerNorm" if n.op == "layer_norm" else "RmsNorm"
    if axes == 1 and w is not None and is_learned(w, b) and (b is not None or n.op == "rms_norm"):
        return n.layer(x, _written(name, _eps_setting(n)), {"gamma": w, "beta": b})
    over = f"axis = {list(range(x.rank - axes, x.rank))}, keep = true"
    centred = x if n.op == "rms_norm" else n.emit(f"{{0}} - mean({{0}}, {over})", x)
    y = n.emit(f"{{0}} * rsqrt(mean({{0}}^2, {over}) + {number(_eps(n), 'f32')})", centred)
    y = y if w is None else n.emit("{0} * {1}", y, n.text.placed(w))
    return y if b is None else n.emit("{0} + {1}", y, n.text.placed(b))


@operator("group_norm")
def group_norm(n: Call) -> Value:
    w, b = n.maybe("weight"), n.maybe("bias")
    if w is None or b is None or not is_learned(w, b):
        raise Refused("without parameters of its own it is not supported")
    return n.layer(n.x, _written("GroupNorm", str(n.arg("num_groups")), _eps_setting(n)), {"gamma": w, "beta": b})


@operator("instance_norm")
def instance_norm(n: Call) -> Value:
    x, w, b = n.tensor("input"), n.maybe("weight"), n.maybe("bias")
    if n.maybe("running_mean") is not None:
        raise Refused("with running averages it is not supported")
    if w is not None and b is not None and is_learned(w, b):
        return n.layer(x, _written("InstanceNorm", _eps_setting(n)), {"gamma": w, "beta": b})
    axes = f"axis = {list(range(2, x.rank))}, keep = true"
    y = n.emit(f"({{0}} - mean({{0}}, {axes})) / sqrt(variance({{0}}, {axes}) + {number(_eps(n), 'f32')})", x)
    return _scaled(n, y, w, b)
