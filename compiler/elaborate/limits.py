"""What a tensor, a number in it, and an entry may be at most."""

from __future__ import annotations

import math

from ...dsl.errors import NncError, error
from ...dsl.source import Span
from ..types.sizes import SizeTooLarge, bounded
from ..types.tensors import FLOATS, INTS, MAX_RANK, TensorType

MAX_CALLS = 100  # how deep definitions may call one another
MAX_BODIES = 200_000  # bodies written out in one entry: calls of definitions, and turns of `repeat`
MAX_EVALUATED = 4_000_000  # expressions, and elements of lists, in one entry
MAX_BYTES = 2**40  # of one tensor
MAX_F32 = 3.4028235677973366e38  # what rounds to more is infinite


def check_type(t: TensorType, span: Span | None) -> None:
    """Refuse what NumPy or no machine holds, before anything allocates it."""
    if t.rank > MAX_RANK:
        raise error("E0303", f"a tensor has at most {MAX_RANK} axes, but this has {t.rank}", span)
    try:
        n = bounded(t.nbytes)
    except SizeTooLarge as large:
        raise error("E0502", str(large), span) from None
    if isinstance(n, int) and n > MAX_BYTES:
        raise error("E0502", f"{t} would take {n:,} bytes, more than the limit of {MAX_BYTES:,}", span)


def check_fits(value: int | float | bool, dtype: str, span: Span | None) -> None:
    """Refuse a literal that its dtype cannot hold."""
    limit = {"i32": 2**31, "i64": 2**63, "f32": MAX_F32}.get(dtype, math.inf)
    if limit < abs(value) < math.inf or (dtype in INTS and value == limit):
        text = f"{value:g}" if dtype in FLOATS else value
        more = {"i32": "i64 holds up to 9223372036854775807", "f32": "f32 holds up to 3.4e38, f64 up to 1.8e308"}.get(
            dtype
        )
        raise error("E0302", f"{text} does not fit {dtype}", span, help=more)


def endless(what: str, span: Span | None) -> NncError:
    return error("E0502", what, span, help="a definition cannot call itself without end: write `repeat`")
