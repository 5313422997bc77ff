"""Relations of sizes in the turns of a scan: what must hold in each must hold in the first and in the last."""

from __future__ import annotations

from ...dsl.errors import error
from ...dsl.source import Span
from ..types.sizes import Dim, Size, substitute, symbol, symbols


def extremes(
    name: str, index: str, count: Dim, a: Dim, b: Dim, relation: str, span: Span | None
) -> list[tuple[Dim, Dim]]:
    """The relations without the index of a scan that together say that it holds in every turn."""
    difference = b - a if relation in ("<", "<=") else a - b
    if index not in symbols(a) | symbols(b):
        return [(a, b)]
    first, last = {index: 0}, {index: count - 1}
    slope = substitute(difference, {index: 1}) - substitute(difference, first)
    if slope == 0 and difference == substitute(difference, first):
        return [(substitute(a, first), substitute(b, first))]
    if relation in ("==", "!=") or difference - substitute(difference, first) - slope * symbol(index) != 0:
        raise error(
            "E0305",
            f"this must hold in every turn of the scan over `{name}`, which only run time can "
            f"decide: {a} {relation} {b}",
            span,
        )
    signs = {c > 0 for _, c in slope.terms} if isinstance(slope, Size) else {slope > 0}
    ends = [first] * (True in signs) + [last] * (False in signs)
    return [(substitute(a, end), substitute(b, end)) for end in ends]
