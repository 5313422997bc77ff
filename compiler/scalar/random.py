"""Random numbers: Philox 2x32-10 in instructions; `philox` is the definition.

The 32-bit words stand in 64-bit lanes, where x86 multiplies 32 x 32 to 64 bits in one instruction.
"""

from __future__ import annotations

from . import philox
from .code import Code
from .function import Scalar


def fold_key(i: Code, key: str) -> str:
    """The 32-bit key, in the low half of 64 bits."""
    z = i.add(key, i.const(philox.GOLDEN))
    for shift, factor in philox.MIX:
        z = i.mul(i.op("xor", z, i.op("lshr", z, i.const(shift))), i.const(factor))
    z = i.op("xor", z, i.op("lshr", z, i.const(philox.MIX_LAST)))
    return i.both(z, i.const(0xFFFFFFFF))


def uniform(i: Code, key: str, counter: str) -> str:
    """A number in [0, 1) of `i`'s dtype from a folded key for each lane and a counter, both i64. What stands above the
    words in their lanes is left there: multiplication looks at the words alone."""
    w = i.of("i64")
    low, word = w.const(0xFFFFFFFF), w.const(32)
    c0, c1 = counter, w.op("lshr", counter, word)
    for k in range(philox.ROUNDS):
        p = w.mul(w.both(c0, low), w.const(philox.MULTIPLIER))
        c0, c1 = w.op("xor", w.op("xor", w.op("lshr", p, word), w.add(key, w.const(k * philox.WEYL))), c1), p
    if i.dtype == "f32":
        b = i.of("i32")
        bits = b.op("lshr", w.convert("trunc", c0, "i32"), b.const(8))
        return i.mul(b.convert("sitofp", bits, "f32"), i.const(2.0**-24))
    bits = w.op("lshr", w.either(w.op("shl", c0, word), w.both(c1, low)), w.const(11))
    return i.mul(w.convert("sitofp", bits, "f64"), i.const(2.0**-53))


def _uniform_of_key(i: Code, key: str, counter: str) -> str:
    """The same with one key for all lanes."""
    return uniform(i, i.of("i64").splat(key), counter)


RANDOM = Scalar(
    name="random",
    operands=("key", "counter"),
    doc="Uniform in [0, 1), from a key and a counter, both i64",
    weight=40,
    shared=True,
    meaning=lambda dtype, key, counter: float(philox.philox_reference(key, counter, dtype)),
    typed=True,
    llvm=_uniform_of_key,
)

ALL = (RANDOM,)
