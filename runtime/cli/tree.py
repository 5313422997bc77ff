"""The syntax tree as text, one node a line, children below their parent."""

from __future__ import annotations

from dataclasses import fields

from ...dsl import ast


def print_tree(module: ast.Module) -> str:
    """`Binary op='+'`, with the role of each child before it."""
    lines: list[str] = []
    stack: list[tuple[ast.Tree, str, str]] = [(d, "", "") for d in reversed(module.definitions)]
    while stack:
        node, indent, role = stack.pop()
        plain: list[str] = []
        below: list[tuple[ast.Tree, str, str]] = []
        for f in fields(node):
            value = getattr(node, f.name)
            if f.name in ("span", "op_span") or value is None or value == () or value == "":
                continue
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, ast.Tree):
                    below.append((item, indent + "  ", f"{f.name}: "))
                else:
                    plain.append(f"{f.name}={item!r}")
        lines.append(f"{indent}{role}{type(node).__name__} {' '.join(plain)}".rstrip())
        stack += reversed(below)
    return "\n".join(lines)
