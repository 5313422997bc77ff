"""What a network has learned, as C: for a toolchain that places it, in a section of its own or a second flash.

In: the struct that predictions read, its bytes. Out: a file of C99 and C++17, whose numbers have the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, isnan
from re import sub
from textwrap import wrap
from typing import Any

import numpy as np

from ...compiler.standalone.structs import Struct
from ..call.arrays import NUMPY

_WIDTH = 100


def weights(struct: Struct, prefix: str, data: bytes) -> str:
    """The definition of `PREFIX_trained`; floats are hexadecimal, so nothing is rounded."""
    lines = [
        f"/* What was learned, ready for predictions; see {prefix}.h. */",
        f'#include "{prefix}.h"', "#include <math.h>  /* INFINITY and NAN */", "",
        f"const {prefix}_{struct.name} {prefix}_trained = {{",
    ]  # fmt: skip
    for path, at, f in struct.places():
        array = np.frombuffer(data[at : at + f.nbytes], NUMPY[f.dtype]).reshape(f.shape)
        lines += [f"    /* {path} */", *wrap("".join(_literals(array)) + ",", _WIDTH, initial_indent="    ",
                                             subsequent_indent="    ", break_long_words=False)]  # fmt: skip
    return "\n".join([*lines, "};", ""])


def _literals(array: np.ndarray[Any, Any]) -> Iterator[str]:
    """An array as C writes it, in braces."""
    if not array.ndim:
        yield _literal(array.item(), str(array.dtype))
        return
    yield "{"
    for k, part in enumerate(array):
        yield ", " if k else ""
        yield from _literals(np.asarray(part))
    yield "}"


def _literal(value: float | int, dtype: str) -> str:
    if not isinstance(value, float):
        return {-(2**31): "INT32_MIN", -(2**63): "INT64_MIN"}.get(value) or f"{int(value)}"
    if isnan(value):
        return "NAN"
    if value in (inf, -inf):
        return "INFINITY" if value > 0 else "-INFINITY"
    return sub(r"\.?0*p", "p", value.hex()) + ("f" if dtype == "float32" else "")
