"""In which order lines of the cache that lie one after the other are asked for, before they are read.

What one core asks for is limited by how many lines it may wait for, not by the memory. But its second-level cache
fetches by itself, and waits for more of them, what follows where lines of a page are read in order: so of several pages
one line each is asked for in turn. Measured where transforms of 12 MB come from beyond that cache: 0.85 of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...loops.index import quotient
from ...types.sizes import Dim

if TYPE_CHECKING:
    from ...native.target import Target

LINE = 64  # bytes of the cache
RUNS = 4  # of lines, which begin in different pages


def runs(target: Target) -> int:
    """Of lines, of each of which one is asked for in turn. Measured with two units; with one they go in order."""
    return RUNS if target.units > 1 else 1


def ordered(n: Dim, lines: int, runs: int) -> Dim:
    """Which of so many lines is the n-th that is asked for."""
    turn = quotient(n, runs, {})
    return (n - turn * runs) * -(-lines // runs) + turn
