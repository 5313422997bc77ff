"""Attention, as the library has it: heads behind positions."""

from __future__ import annotations

import math

from ...onnx.importing.refusals import Refused
from ...onnx.importing.values import Value, number
from ..call import Call, operator

_HEADS_LAST = [0, 2, 1, 3]  # [B, heads, T, d] as [B, T, heads, d], and back


@operator("scaled_dot_product_attention")
def attention(n: Call) -> Value:
    q, k, v = (n.tensor(name) for name in ("query", "key", "value"))
    if any(x.rank != 4 for x in (q, k, v)):
        raise Refused("only [batch, heads, positions, features] is supported")
    if n.arg("enable_gqa") and q.shape[1] != k.shape[1]:
        raise Refused("heads that share keys are not supported")
    width = q.shape[3]
    scale, mask, drop = n.arg("scale"), n.maybe("attn_mask"), n.arg("dropout_p")
    if n.arg("is_causal") and q.shape[2] != k.shape[2]:
        raise Refused("causal attention wants as many keys as queries")
    values = [n.transposed(x, _HEADS_LAST) for x in (q, k, v)]
    if scale is not None:
        if not isinstance(width, int):
            raise Refused("a scale needs a size of the heads that is known")
        factor = scale * math.sqrt(width)
        if abs(factor - 1) > 1e-6:
            values[0] = n.emit(f"{{0}} * {number(factor, 'f32')}", values[0])
    more = f", drop = {number(drop, 'f32')}" if drop else ""
    if mask is not None:
        bias = n.emit("where({0}, 0.0, -inf)", mask) if mask.dtype == "bool" else mask
        y = n.emit(f"attend({{0}}, {{1}}, {{2}}, {{3}}{more})", *values, n.text.placed(bias))
    else:
        causal = ", causal = true" if n.arg("is_causal") else ""
        y = n.emit(f"attend_in_blocks({{0}}, {{1}}, {{2}}{causal}{more})", *values)
    return n.transposed(y, _HEADS_LAST)
