"""Values of an entry and the buffers they lie in: which node only renames another's, what the outside calls them."""

from __future__ import annotations

from ...graph.boxes import flat
from ...graph.nodes import Graph, Node
from ...types.sizes import Dim
from ...types.tensors import BYTES, TensorType, TupleType

Value = tuple[str, int]  # a node and which of its results


def types(node: Node) -> tuple[TensorType, ...]:
    """The types of a node's results."""
    return node.type.items if isinstance(node.type, TupleType) else (node.type,)


def output_slot(name: str) -> str:
    """The slot of an output. An output may be called like an input or a variable (a gradient is), its slot may not."""
    return f"{name} (output)"


def constant_name(graph: Graph, node: Node) -> str:
    """The name of a constant in the module, where kernels and entries have names too."""
    return f"{graph.name}.{node.name}"


def roots(graph: Graph) -> dict[str, Value]:
    """For each node the value whose buffer it lies in: a reshape lies where its operand does, a slice in it where
    fusion says so, an item is a result of its operand, and all that read one variable read one buffer."""
    out: dict[str, Value] = {}
    leaf: dict[tuple[str, str], str] = {}
    for n in graph:
        match n.op:
            case "reshape" | "assume":
                out[n.name] = out[n.args[0]]
            case "slice" if n.attrs.get("lies"):
                out[n.name] = out[n.args[0]]
            case "item":
                out[n.name] = (n.args[0], n.attrs["index"])
            case "input" | "param":
                key = (n.op, n.attrs["name" if n.op == "input" else "path"])
                out[n.name] = (leaf.setdefault(key, n.name), 0)
            case _:
                out[n.name] = (n.name, 0)
    return out


def is_kernel(node: Node) -> bool:
    """Whether code runs for a node: not for leaves, nor for those that only rename a buffer."""
    renames = ("input", "param", "item", "reshape", "assume", "constant")
    return node.op not in renames and not node.attrs.get("lies")


def shift(graph: Graph, name: str) -> Dim:
    """How many bytes behind the beginning of its root's buffer a node lies."""
    node = graph[name]
    total: Dim = 0
    while node.op in ("reshape", "assume") or node.attrs.get("lies"):
        of = graph[node.args[0]]
        if node.op == "slice":
            total = total + flat(node.attrs["starts"], of.shape) * BYTES[of.dtype]
        node = of
    return total
