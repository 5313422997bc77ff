"""Random draws by whole numbers: the same bits as in nnc.

Philox 2x32-10 as `compiler/scalar/philox` has it. ONNX multiplies no unsigned 64-bit words everywhere, so words are
i64: what wraps around is the same, and a shift to the right is a division after the sign was taken off.
"""

from __future__ import annotations

from collections.abc import Mapping

from ....compiler.graph.nodes import Node
from ....compiler.graph.ops.random import SITE
from ....compiler.scalar.philox import GOLDEN, MIX, MIX_LAST, MULTIPLIER, ROUNDS, WEYL
from .scalars import apply
from .values import Refused, Scope, Value, elements
from .views import along
from .walk import Rule, Walk

_LOW = 0xFFFFFFFF


def _word(s: Scope, n: int) -> Value:
    return s.constant((n + 2**63) % 2**64 - 2**63, "i64")


def _add(s: Scope, a: Value, b: Value) -> Value:
    return apply(s, "Add", a, b)


def _mul(s: Scope, a: Value, b: Value) -> Value:
    return apply(s, "Mul", a, b)


def _shifted(s: Scope, v: Value, n: int) -> Value:
    """v >> n of unsigned words."""
    u = s.emit("BitShift", s.cast(v, "u64"), s.constant(n, "u64"), type=("u64", v.shape), direction="RIGHT")
    return s.cast(u, "i64")


def _low(s: Scope, v: Value) -> Value:
    """The low half of words."""
    return apply(s, "BitwiseAnd", v, _word(s, _LOW))


def _xor(s: Scope, a: Value, b: Value) -> Value:
    return apply(s, "BitwiseXor", a, b)


def _key(s: Scope, key: Value, site: int) -> Value:
    """The 32-bit key of a call site."""
    z = _add(s, _add(s, key, _word(s, site * SITE)), _word(s, GOLDEN))
    for shift, factor in MIX:
        z = _mul(s, _xor(s, z, _shifted(s, z, shift)), _word(s, factor))
    return _low(s, _xor(s, z, _shifted(s, z, MIX_LAST)))


def _product(s: Scope, c: Value) -> tuple[Value, Value]:
    """The halves of MULTIPLIER times a 32-bit word, which as 64 bits has no sign to speak of."""
    p = _mul(s, c, _word(s, MULTIPLIER))
    return _shifted(s, p, 32), _low(s, p)


def _random(w: Walk, n: Node) -> Value:
    s = w.scope
    if s.opset < 18:
        raise Refused("random draws need opset 18 or newer, which has operators of bits")
    key = _key(s, w.full(n.args[0]), n.attrs["site"])
    counter = along(s, elements(n.shape), "i64")
    c0, c1 = _low(s, counter), _shifted(s, counter, 32)
    for _ in range(ROUNDS):
        high, low = _product(s, c0)
        c0, c1 = _xor(s, _xor(s, high, key), c1), low
        key = _low(s, _add(s, key, _word(s, WEYL)))
    if n.dtype == "f32":
        u = apply(s, "Mul", s.cast(_shifted(s, c0, 8), "f32"), s.constant(2.0**-24, "f32"))
    else:
        wide = _add(s, _mul(s, c0, _word(s, 2**32)), c1)
        u = apply(s, "Mul", s.cast(_shifted(s, wide, 11), "f64"), s.constant(2.0**-53, "f64"))
    return s.reshape(u, n.shape)


RULES: Mapping[str, Rule] = {"random": _random}
