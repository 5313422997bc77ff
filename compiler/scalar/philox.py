"""Counter-based random numbers: Philox 2x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as
1, 2, 3"). The definition, in NumPy; generated code gives the same bits.

`random(key, counter)` of two i64, as unsigned 64-bit words:

* key k is mixed to 32 bits, so that neighbouring seeds give unrelated streams (the finaliser of SplitMix64, Steele,
  Lea & Flood 2014, of which the low half is kept):
      z = k + 0x9E3779B97F4A7C15;  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;  z = (z ^ z >> 27) * 0x94D049BB133111EB
      k = low 32 bits of (z ^ z >> 31)
* the counter is two words, c0 the low one, c1 the high one; ten rounds of
      p = 0xD256D193 * c0 (64 bits);  c0, c1 = high(p) ^ k ^ c1, low(p);  k = k + 0x9E3779B9
* f32: the upper 24 bits of c0, times 2^-24. f64: the upper 53 bits of c0 : c1, times 2^-53. So 0 <= u < 1, uniform on
  a grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDS = 10
MULTIPLIER = 0xD256D193
WEYL = 0x9E3779B9
GOLDEN = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
MIX_LAST = 31


def fold_key(key: ArrayLike) -> NDArray[np.uint64]:
    """The 32-bit key, in the low half of 64 bits."""
    z = np.asarray(key, np.int64).astype(np.uint64)
    with np.errstate(over="ignore"):
        z = z + np.uint64(GOLDEN)
        for shift, factor in MIX:
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return (z ^ (z >> np.uint64(MIX_LAST))) & np.uint64(0xFFFFFFFF)


def philox_reference(key: ArrayLike, counter: ArrayLike, dtype: str) -> NDArray[np.floating]:
    """Uniform numbers in [0, 1) of dtype `f32` or `f64`, shaped like key and counter broadcast together."""
    low = np.uint64(0xFFFFFFFF)
    k = fold_key(key)
    c = np.asarray(counter, np.int64).astype(np.uint64)
    c0, c1 = c & low, c >> np.uint64(32)
    for _ in range(ROUNDS):
        p = np.uint64(MULTIPLIER) * c0
        c0, c1 = (p >> np.uint64(32)) ^ k ^ c1, p & low
        k = (k + np.uint64(WEYL)) & low
    if dtype == "f32":
        return (c0 >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
    return (((c0 << np.uint64(32)) | c1) >> np.uint64(11)).astype(np.float64) * 2.0**-53
