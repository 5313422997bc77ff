"""Philox 2x32-10 in instructions; `..philox` is the definition.

The 32-bit words stand in 64-bit lanes, where x86 multiplies 32 x 32 to 64 bits in one instruction.
"""

from __future__ import annotations

from .. import philox
from .instructions import Instructions


def fold_key(i: Instructions, key: str) -> str:
    """The 32-bit key, in the low half of 64 bits."""
    z = i.add(key, i.const(philox.GOLDEN))
    for shift, factor in philox.MIX:
        z = i.mul(i.op("xor", z, i.op("lshr", z, i.const(shift))), i.const(factor))
    z = i.op("xor", z, i.op("lshr", z, i.const(philox.MIX_LAST)))
    return i.both(z, i.const(0xFFFFFFFF))


def uniform(i: Instructions, key: str, counter: str) -> str:
    """A number in [0, 1) of `i`'s dtype from a folded key and a counter, both i64."""
    w = i.of("i64")
    low, word = w.const(0xFFFFFFFF), w.const(32)
    c0, c1 = w.both(counter, low), w.op("lshr", counter, word)
    for _ in range(philox.ROUNDS):
        p = w.mul(c0, w.const(philox.MULTIPLIER))
        c0, c1 = w.op("xor", w.op("xor", w.op("lshr", p, word), key), c1), w.both(p, low)
        key = w.both(w.add(key, w.const(philox.WEYL)), low)
    if i.dtype == "f32":
        bits = w.convert("trunc", w.op("lshr", c0, w.const(8)), "i32")
        return i.mul(i.of("i32").convert("sitofp", bits, "f32"), i.const(2.0**-24))
    bits = w.op("lshr", w.either(w.op("shl", c0, word), c1), w.const(11))
    return i.mul(w.convert("sitofp", bits, "f64"), i.const(2.0**-53))
