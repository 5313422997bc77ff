"""The binary tree by which partial sums of shards meet. It is the same however many ranks there are.

The leaves are the shards of a batch, a power of two; a node is a range of shards, aligned to its width, and is the sum
of its halves, left plus right. A rank owns neighbouring shards: it can add what is below the largest nodes that lie in
them, its roots. What is above needs the roots of others."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from ..call.messages import argument_error


class Node(NamedTuple):
    """The shards `first` to `first + width - 1`; `width` is a power of two that divides `first`."""

    first: int
    width: int

    def meets(self, right: Node) -> bool:
        """Whether the two are the halves of a node, this one the left."""
        return self.width == right.width and right.first == self.first + self.width and not self.first & self.width

    @property
    def above(self) -> Node:
        """The node of which this is the left half."""
        return Node(self.first, 2 * self.width)


def owned(rank: int, size: int, shards: int) -> range:
    """The shards of a rank. Raises ArgumentError (E0603) where `shards` is no power of two, or fewer than the ranks."""
    if shards < 1 or shards & (shards - 1):
        raise argument_error("E0603", f"shards = {shards}: wanted a power of two, such as 16")
    if size > shards:
        help = f"start at most {shards} processes, or cut a batch into more shards; it is then summed in another order"
        raise argument_error("E0603", f"{size} ranks for {shards} shards: each rank computes one at least", help)
    return range(shards * rank // size, shards * (rank + 1) // size)


def roots(shards: range) -> list[Node]:
    """The largest nodes that lie in a range of shards, from left to right."""
    found: list[Node] = []
    for shard in shards:
        node = Node(shard, 1)
        while found and found[-1].meets(node):
            node = found.pop().above
        found.append(node)
    return found


def sums(nodes: Iterable[Node]) -> list[tuple[int, int]]:
    """How nodes that lie side by side come to the sum of all: pairs of places, in order; the right is added to the
    left."""
    open: list[tuple[int, Node]] = []
    pairs = []
    for place, node in enumerate(nodes):
        open.append((place, node))
        while len(open) > 1 and open[-2][1].meets(open[-1][1]):
            (left, of), (right, _) = open[-2:]
            pairs.append((left, right))
            open[-2:] = [(left, of.above)]
    return pairs


def cut(length: int, pieces: int, align: int) -> list[slice]:
    """A vector in so many pieces of about equal length; where they begin is a multiple of `align`."""
    ends = [length * k // pieces // align * align for k in range(pieces)] + [length]
    return [slice(a, b) for a, b in pairwise(ends)]
