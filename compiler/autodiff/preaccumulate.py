"""Preaccumulation: what is elementwise of one value has one derivative, which the adjoint is multiplied with once.

    y = x s(x)      node by node   dx = dy s + dy x s'        at once   dx = dy (s + x s')

Node by node the adjoint meets values of the forward pass in several places, and all of them are kept until then. The
derivative at once needs no adjoint, so it can be computed as soon as x is there, and is all that is kept of it.

Griewank, Walther, "Evaluating Derivatives" (2008), section 10.2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ..graph.cost import own_weight
from ..graph.nodes import Builder
from ..graph.ops import OPS
from ..graph.ops.op import MAP

CHEAP = 4  # weight up to which a value would be computed again rather than kept
MOST = 32  # nodes that are taken at once
CHOICES = ("where", "minimum", "maximum")  # what is not taken may have no derivative: nothing is multiplied with that


class Paths:
    """Which active nodes read which, in their order."""

    def __init__(self, b: Builder, order: Collection[str], ends: Collection[str]):
        """`ends` are nodes whose adjoints are wanted, or given."""
        self._b, self._ends = b, ends
        self._position = {name: k for k, name in enumerate(order)}
        self._readers: dict[str, list[str]] = {name: [] for name in order}
        for name in order:
            for a in self._active(name):
                self._readers[a].append(name)

    def of_one(self, name: str) -> tuple[list[str], str] | None:
        """The nodes between a value and the one from which all paths come to it, last first and with it, where they are
        elementwise, nothing else reads them, and there are several paths with something that is worth it."""
        inside: list[str] = []
        front = {name}
        while not inside or len(front) > 1:
            last = max(front, key=self._position.__getitem__)
            if len(inside) == MOST or not self._passes(last, inside, name):
                return None
            inside.append(last)
            front = (front - {last}) | self._active(last)
        (x,) = front
        worth = len(inside) > 1 and any(own_weight(self._b[n]) > CHEAP for n in inside)
        return (inside, x) if worth and self._b.type(x) == self._b.type(name) else None

    def _active(self, name: str) -> set[str]:
        return {a for a in self._b[name].args if a in self._position}

    def _passes(self, name: str, inside: Collection[str], end: str) -> bool:
        n = self._b[name]
        if OPS[n.op].kind != MAP or n.op in CHOICES or n.type != self._b.type(end) or not self._active(name):
            return False
        return name == end or (name not in self._ends and all(r in inside for r in self._readers[name]))


def derivative(inside: Collection[str], seed: str, rule: Callable[[str, str], Mapping[str, str]],
               add: Callable[[list[str]], str]) -> str:  # fmt: skip
    """The derivative of the first of the nodes by what the last reads; `rule` gives adjoints of a node's operands."""
    adjoints = {next(iter(inside)): [seed]}
    for name in inside:
        dy = add(adjoints.pop(name))
        for a, dx in rule(name, dy).items():
            adjoints.setdefault(a, []).append(dx)
    ((_, terms),) = adjoints.items()
    return add(terms)
