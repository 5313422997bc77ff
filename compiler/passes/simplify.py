"""Simplification: the rules of `algebra`, `views` and `absorb`, swept over the graph to their fixed point.

Each rule is a function with its mathematics above it. Rules keep NaN, infinities and -0 (what that excludes is said in
`algebra`), numerically careful forms such as log-sum-exp stay as they are written, and no rule makes work twice.
"""

from __future__ import annotations

from ..graph import Graph
from . import absorb, algebra, views
from .rewrite import Table, rewrite

_FAMILIES = (algebra.RULES, views.RULES, absorb.RULES)
RULES: Table = {
    op: tuple(rule for family in _FAMILIES for rule in family.get(op, ()))
    for op in sorted(set().union(*_FAMILIES))
}


def simplify(graph: Graph) -> Graph:
    """An equal graph in which no rule applies."""
    return rewrite(graph, RULES)
