"""Graph -> Graphviz: one box an operator, leaves rounded, edges labelled with the type that flows along them."""

from __future__ import annotations

from .nodes import Graph, Node
from .ops import OPS
from .ops.op import CONTRACT

COLOURS = {"input": "#d5e8f7", "param": "#fbe5c8", "constant": "#eeeeee", "fused": "#dff0d8"}
PRODUCT = "#f7d5dc"


def print_dot(graph: Graph) -> str:
    """The graph as a `digraph`; deterministic."""
    number = {node.name: k for k, node in enumerate(graph)}
    lines = [f"digraph {_quote(graph.name)} {{", "  rankdir = TB;", '  node [fontname = "Helvetica", fontsize = 10];',
             '  edge [fontname = "Helvetica", fontsize = 8, color = "#666666"];']  # fmt: skip
    for node in graph:
        shape = 'box, style = "rounded,filled"' if not node.args else "box, style = filled"
        colour = PRODUCT if OPS[node.op].kind == CONTRACT else COLOURS.get(node.op, "#ffffff")
        lines.append(
            f"  n{number[node.name]} [label = {_quote(_label(node))}, shape = {shape}, fillcolor = {_quote(colour)}];"
        )
    for node in graph:
        for arg in node.args:
            lines.append(f"  n{number[arg]} -> n{number[node.name]} [label = {_quote(str(graph[arg].type))}];")
    for prefix, roots in (("", graph.outputs), (":= ", graph.updates)):
        for k, (name, value) in enumerate(roots):
            target = f"{'u' if prefix else 'o'}{k}"
            lines.append(f"  {target} [label = {_quote(prefix + name)}, shape = ellipse];")
            lines.append(f"  n{number[value]} -> {target} [label = {_quote(str(graph[value].type))}];")
    return "\n".join([*lines, "}"]) + "\n"


def _label(node: Node) -> str:
    if node.op in ("input", "param"):
        return f"{node.attrs['name' if node.op == 'input' else 'path']}\n{node.type}"
    if node.op == "constant" and len(node.attrs["values"]) == 1:
        return str(node.attrs["values"][0])
    return node.op if node.op != "fused" else "fused\n" + " ".join(n.op for n in node.attrs["body"] if n.args)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
