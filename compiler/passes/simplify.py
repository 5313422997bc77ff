"""Simplification: the rules of `algebra`, `views`, `absorb`, `adjoint` and `fold`, swept to their fixed point.

Each rule is a function with its mathematics above it. Rules keep NaN, infinities and -0 (what that excludes is said in
`algebra`), numerically careful forms such as log-sum-exp stay as they are written, and no rule makes work twice.
"""

from __future__ import annotations

from ..graph.nodes import Graph
from .guard import RULES as GUARD
from .rewrite import Table, rewrite
from .rules.absorb import RULES as ABSORB
from .rules.adjoint import RULES as ADJOINT
from .rules.algebra import RULES as ALGEBRA
from .rules.fold import RULES as FOLD
from .rules.views import RULES as VIEWS

_FAMILIES = (FOLD, ALGEBRA, VIEWS, ABSORB, ADJOINT, GUARD)
RULES: Table = {
    op: tuple(rule for family in _FAMILIES for rule in family.get(op, ())) for op in sorted(set().union(*_FAMILIES))
}


def simplify(graph: Graph) -> Graph:
    """An equal graph in which no rule applies."""
    return rewrite(graph, RULES)
