"""Modules that are a layer of the library as a whole: multi-head self-attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .capture import short

_ATTENTION = "torch.nn.modules.activation.MultiheadAttention"


@dataclass(frozen=True, slots=True)
class Whole:
    """One call of a module: its nodes by name, the node that it reads and the one whose value is read outside."""

    path: str
    module: Any
    nodes: frozenset[str]
    source: Any
    result: Any
    causal: bool
    drop: float


def wholes(module: Any, program: Any) -> dict[str, Whole]:
    """By the name of each node in it, the call of multi-head attention that can be written as one layer: each position
    asks all others, without a mask but the causal one."""
    calls: dict[str, list[Any]] = {}
    for node in program.graph.nodes:
        for key, (_, kind) in (node.meta.get("nn_module_stack") or {}).items():
            if kind == _ATTENTION and node.op == "call_function":
                calls.setdefault(key, []).append(node)
    found: dict[str, Whole] = {}
    for key, nodes in calls.items():
        path = nodes[0].meta["nn_module_stack"][key][0]
        whole = _whole(module.get_submodule(path), path, nodes)
        if whole is not None:
            found |= dict.fromkeys(whole.nodes, whole)
    return found


def _whole(attention: Any, path: str, nodes: list[Any]) -> Whole | None:
    plain = attention._qkv_same_embed_dim and attention.bias_k is None and not attention.add_zero_attn
    inside = {n.name for n in nodes if hasattr(n.meta.get("val"), "dtype")}
    tensors = [n for n in nodes if n.name in inside]
    given = {a.name: a for n in tensors for a in n.all_input_nodes if a.name not in inside and _is_activation(a)}
    read = {n.name: n for n in tensors if any(u.name not in inside for u in n.users)}
    if not plain or len(given) != 1 or len(read) != 1:
        return None
    (source,), (result,) = given.values(), read.values()
    products = [n for n in tensors if short(n.target) == "scaled_dot_product_attention"]
    causal = any(_given(n, 5, "is_causal") for n in products)
    drops = [_given(n, 4, "dropout_p") or 0.0 for n in products]
    drops += [n.args[1] for n in tensors if short(n.target) == "dropout" and n.args[2]]
    if tuple(source.meta["val"].shape) != tuple(result.meta["val"].shape) or len(source.meta["val"].shape) != 3:
        return None
    return Whole(path, attention, frozenset(inside), source, result, causal, max(drops, default=0.0))


def _is_activation(node: Any) -> bool:
    """Whether it is a tensor, but no parameter; a buffer, as a mask is, counts."""
    return hasattr(node.meta.get("val"), "dtype") and not (node.op == "placeholder" and node.name.startswith("p_"))


def _given(node: Any, k: int, name: str) -> Any:
    """An argument by its place or its name; None without."""
    return node.args[k] if len(node.args) > k else node.kwargs.get(name)


def call_of(whole: Whole) -> str:
    """The layer as it is written."""
    m = whole.module
    settings: Mapping[str, object] = {
        "causal": "true" if whole.causal else "",
        "bias": "" if m.in_proj_bias is not None else "false",
        "drop": whole.drop or "",
    }
    more = "".join(f", {name} = {value}" for name, value in settings.items() if value)
    return f"Attention({m.num_heads}{more})"
