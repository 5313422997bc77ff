"""Where in a network a node stands, as the program said that made the graph.

PyTorch's exporters tell it, the older in the node's name, `/layer1/layer1.0/conv1/Conv`, the newer in its metadata;
ours in the node's name, `block_1.conv_1/Conv`, and within the function of a layer from there on.
"""

from __future__ import annotations

import ast
from typing import Any

_SCOPES = "pkg.torch.onnx.name_scopes"
_MAX_SCOPES = 10_000  # characters of metadata


def module_of(node: Any) -> tuple[str, ...]:
    """The path of the module that a node is of: `("layer1", "0", "conv1")`; empty where that is not said."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES and len(entry.value) < _MAX_SCOPES:
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                return ()
            return _innermost(scopes[:-1]) if isinstance(scopes, list) else ()
    if node.name.startswith("/"):
        return _innermost(node.name.split("/")[1:-1])
    path = node.name.rpartition("/")[0].replace("/", ".").split(".")
    return tuple(path) if all(p.isidentifier() for p in path) else ()


def _innermost(scopes: list[Any]) -> tuple[str, ...]:
    """Scopes from the outermost on, where each may repeat what is around it: `layer1`, `layer1.0`, `layer1.0.conv1`."""
    path: list[str] = []
    before = ""
    for scope in scopes:
        if not isinstance(scope, str):
            return ()
        if before and scope.startswith(f"{before}."):
            path[-1] = scope
        elif scope:
            path.append(scope)
        before = scope
    return tuple(p for p in ".".join(path).split(".") if p)
