"""Common subexpression elimination: equal operators on equal operands are one node.

Every operator is a function of operands and attributes, random draws too: the call site is an attribute. Attributes are
compared as they are written, so that 0.0 and -0.0, 1 and 1.0 and True remain different.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ..graph.nodes import Graph, Node
from ..graph.ops import OPS
from .rewrite import assemble


def cse(graph: Graph) -> Graph:
    """The graph with the first of equal nodes in the place of each. A value that a `grad` differentiates with respect
    to is a variable and equal to nothing else."""
    variables = {a for n in graph if n.op == "grad" for a in n.args[1:]}
    first: dict[Hashable, str] = {}
    new: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for n in graph:
        args = tuple(new[a] for a in n.args)
        key = (n.op, tuple(sorted(args)) if OPS[n.op].commutative else args, _key(n.attrs))
        same = first.setdefault(key, n.name) if n.name not in variables else n.name
        new[n.name] = same
        if same == n.name:
            nodes[n.name] = n if args == n.args else Node(n.name, n.op, args, n.attrs, n.type, n.span)
    return assemble(graph, nodes, [(k, new[v]) for k, v in graph.outputs], [(k, new[v]) for k, v in graph.updates])


def _key(x: Any) -> Hashable:
    if type(x) is int or type(x) is str:
        return x
    if type(x) is tuple:
        return tuple([_key(v) for v in x])
    match x:
        case dict():
            return tuple((k, _key(x[k])) for k in sorted(x))
        case tuple():
            return tuple(map(_key, x))
        case float():
            return ("float", repr(x))
        case bool():
            return ("bool", x)
        case Graph():  # the body of a scan: equal but for the names in it
            number = {n.name: k for k, n in enumerate(x)}
            nodes = ((n.op, tuple(number[a] for a in n.args), n.type, n.op == "input" or _key(n.attrs)) for n in x)
            return tuple(nodes), tuple(number[v] for _, v in x.outputs)
        case _:
            plain: Hashable = x
            return plain
