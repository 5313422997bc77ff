"""Which example comes when: permutations and splits that depend on a seed and a counter alone.

A permutation sorts keys drawn from Philox, whose stream NumPy promises never to change; so the same seed gives
the same order on every machine, and an epoch's order can be made again without the epochs before it.
"""

from __future__ import annotations

import numpy as np

from ..call.column import Array

_SHUFFLE, _SPLIT = 0, 1  # separate streams of one seed
_MASK = (1 << 64) - 1


def permutation(n: int, seed: int, epoch: int) -> Array:
    """The order of `n` examples in an epoch, int64."""
    return _sorted(_keys(n, seed, epoch, _SHUFFLE))


def split(n: int, share: float, seed: int, classes: Array | None = None) -> tuple[Array, Array]:
    """Two sorted index sets, the second with `share` of the examples (rounded, at least one, never all).

    With `classes` (one int per example) every class gives its share, by the largest-remainder method, so that a class
    is not missing by bad luck.
    """
    keys = _keys(n, seed, 0, _SPLIT)
    wanted = min(max(1, round(n * share)), n - 1) if n > 1 else 0
    if classes is None or not n:
        chosen = _sorted(keys)[:wanted]
    else:
        _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
        exact = counts * wanted / n
        take = np.floor(exact).astype(np.int64)
        largest = np.argsort(take - exact, kind="stable")
        take[largest[: wanted - int(take.sum())]] += 1
        by_class = np.lexsort((keys, inverse.ravel()))
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        chosen = np.concatenate([by_class[s : s + t] for s, t in zip(starts, take, strict=True)])
    held_out = np.zeros(n, bool)
    held_out[chosen] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _sorted(keys: Array) -> Array:
    """The indices in the order of the keys' low 48 bits, equal ones as they stand: least significant digit first, for
    NumPy sorts 16-bit digits by counting, which is five times quicker than comparing whole keys."""
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    for shift in (16, 32):
        digit = (keys >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order.astype(np.int64, copy=False)


def _keys(n: int, seed: int, counter: int, stream: int) -> Array:
    words = np.array([[seed & _MASK, stream, 0, 0], [0, 0, counter & _MASK, 0]], np.uint64)
    return np.random.Philox(key=words[0, :2], counter=words[1]).random_raw(n)
