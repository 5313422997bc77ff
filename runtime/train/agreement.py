"""What processes that train together must have in common before they begin: facts, as short digests.

In: a network and the arrays that it is trained on. Out: facts by name, for `Ranks.same`. Of large data a sample is
looked at, so that no process reads the rows of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..call.column import Array, Rows
from ..network import Network

_LOOKED_AT = 64  # rows of an array


def facts(network: Network, arrays: Sequence[Rows], settings: Mapping[str, Any]) -> dict[str, str]:
    """By what a process differs from another. `settings` are those of the fit."""
    m = network.manifest
    compiler, processor = network.session.made_by
    sampled = (a for rows in arrays for a in _sample(rows))
    return {
        "nnc": _digest([compiler]),
        "processor": processor,
        "program": _digest([repr((sorted(m.sources.items()), m.files, m.sizes, m.hypers, m.dtype))]),
        **{name: str(value) for name, value in settings.items()},
        "data": _digest(sampled),
        "weights": _digest(network.variables[path] for path in network.variables),
    }


def _sample(rows: Rows) -> Iterable[Array | str]:
    yield f"{rows.dtype}{list(rows.shape)}"
    if isinstance(rows, np.ndarray) and not rows.ndim:
        yield rows
        return
    n = len(rows)
    for k in np.unique(np.linspace(0, n - 1, min(n, _LOOKED_AT)).astype(np.int64)).tolist():
        yield rows[k : k + 1]


def _digest(parts: Iterable[Any]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:12]
