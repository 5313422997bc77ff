"""Chains of the syntax tree: what stands in a row is one level, however long the row.

A chain goes on in one field of its nodes: `a + b - c`, `x |> f |> g`, `else if`, and what is written behind a value,
`x.T[0](a)`. Whoever walks a tree goes along chains in a loop, and by recursion into all else: `MAX_DEPTH` levels at
most.
"""

from __future__ import annotations

from . import ast
from .tokens import MAX_DEPTH

Postfix = ast.Call | ast.Index | ast.Attribute

_POSTFIX = (ast.Call, ast.Index, ast.Attribute)
# where a chain goes on, and the kinds that are one with it
_ALONG: dict[type, tuple[str, tuple[type, ...]]] = {
    ast.Binary: ("left", (ast.Binary,)),
    ast.Pipe: ("value", (ast.Pipe,)),
    ast.If: ("otherwise", (ast.If,)),
    ast.IfExpr: ("otherwise", (ast.IfExpr,)),
    ast.Call: ("function", _POSTFIX),
    ast.Index: ("base", _POSTFIX),
    ast.Attribute: ("base", _POSTFIX),
}


def postfixes(e: ast.Expr) -> tuple[ast.Expr, list[Postfix]]:
    """What stands first, and the calls, indices and attributes behind it, as they are written."""
    steps: list[Postfix] = []
    while isinstance(e, _POSTFIX):
        steps.append(e)
        e = e.function if isinstance(e, ast.Call) else e.base
    return e, steps[::-1]


def deepest(tree: ast.Tree) -> ast.Tree | None:
    """The first node that stands more than MAX_DEPTH levels below `tree`, or None: a walk without recursion. A chain is
    one level; so are a call and its arguments."""
    level = [tree]
    for _ in range(MAX_DEPTH):
        below: list[ast.Tree] = []
        for node in level:  # grows while it is walked
            along, kinds = _ALONG.get(type(node), ("", ()))
            field: str
            for field in node.__match_args__:
                child = getattr(node, field)
                inner = child if isinstance(child, tuple) else (child,)
                flat = field == along and len(inner) == 1 and type(inner[0]) in kinds
                for c in inner:
                    if isinstance(c, ast.Tree):
                        (level if flat or isinstance(c, ast.Argument) else below).append(c)
        if not below:
            return None
        level = below
    return level[0]
