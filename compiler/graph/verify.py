"""The verifier: is a graph well-formed? Asked after every pass, so that a pass that breaks a graph is named.

In: a graph and the name of what made it. Out: the same graph, or `InternalError` E0901. Types are inferred again with
the operators' own rules, so nothing about an operator is known here. A node that a verified graph had, or one of its
operator, attributes and type, with operands of the same types, is not asked again: it cannot change, and nothing else
of a graph goes into its type.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...dsl.errors import InternalError, error
from ..types.tensors import Type
from .nodes import Graph, Node
from .ops import OPS
from .ops.op import LOOP, ShapeError


def verify(graph: Graph, after: str, before: Graph | None = None) -> Graph:
    """The graph itself, if names, operands, order, types, outputs and leaves are as they must be. `before` is a graph
    that was verified."""
    known = before.nodes if before is not None else {}
    types: dict[str, Type] = {}
    leaves: dict[tuple[str, str], str] = {}
    for name, node in graph.nodes.items():
        if not isinstance(node, Node) or node.name != name:
            raise _fault(after, name, "is not stored under its name")
        for a in node.args:
            if a not in types:
                raise _fault(after, name, f"reads {a}, which does not come before it")
        operands = [types[a] for a in node.args]
        if not _is_typed(node, operands, known):
            _typed(node, operands, after)
        types[name] = node.type
        if node.op in ("input", "param"):
            leaf = (node.op, node.attrs["name" if node.op == "input" else "path"])
            if leaves.setdefault(leaf, name) != name and (node.op == "input" or types[leaves[leaf]] != node.type):
                raise _fault(after, name, f"is the {node.op} {leaf[1]} once more")
    for what, named in (("output", graph.outputs), ("update", graph.updates)):
        for key, value in named:
            if value not in types:
                raise _fault(after, value, f"does not exist, but is the {what} {key}")
        if len({key for key, _ in named}) != len(named):
            raise _fault(after, named[0][1], f"is one of two {what}s of one name")
    for path, value in graph.updates:
        if ("param", path) in leaves and types[leaves["param", path]] != types[value]:
            raise _fault(after, value, f"is {types[value]}, but updates {path}, a {types[leaves['param', path]]}")
    return graph


def _is_typed(node: Node, operands: list[Type], known: Mapping[str, Node]) -> bool:
    """Whether a verified graph says that a node has its type."""
    was = known.get(node.name)
    if was is None or was.op != node.op or was.attrs is not node.attrs or was.type != node.type:
        return False
    return operands == [known[a].type for a in was.args]


def _typed(node: Node, operands: list[Type], after: str) -> None:
    """Ask the operator of a node, and the body of a loop."""
    if (op := OPS.get(node.op)) is None:
        raise _fault(after, node.name, f"has an operator that does not exist: {node.op}")
    try:
        inferred = op.infer(operands, node.attrs)
    except (ShapeError, KeyError, TypeError, ValueError) as e:
        raise _fault(after, node.name, f"is ill-typed: {type(e).__name__}: {e}") from e
    if inferred != node.type:
        raise _fault(after, node.name, f"has the type {node.type}, but its operator says {inferred}")
    if op.kind == LOOP:
        verify(node.attrs["body"], f"{after}, in the body of {node.name}")


def _fault(after: str, node: str, what: str) -> Exception:
    return error("E0901", f"after {after}: node {node} {what}", kind=InternalError)
