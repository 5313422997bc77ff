"""How other programs name their arrays and lay them out: the arrays of a file as layers with the roles that ours have.

In: arrays by name. Out: layers in natural order (2 before 10), each with what could be its weight, bias and so on: the
right side of a rule (see `rules`), and the shape that comes of it.

PyTorch        `weight` [out, in, *kernel], `running_mean`; of recurrent layers `weight_ih_l0`, `weight_hh_l0` and two
               biases, gates as ours; of attention `in_proj_weight`, the rows of queries, keys and values. `nn.LSTM`,
               `nn.GRU` and `nn.MultiheadAttention` of its documentation.
Keras, Flax    `kernel` [*kernel, in, out], `recurrent_kernel`, `moving_mean`; the gates of Keras' GRU stand in another
               order than ours, which no rule says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from ..call.column import Array

ROLES: Mapping[str, str] = {
    **dict.fromkeys(
        ("weight", "W", "gamma", "scale", "embedding", "embeddings", "kernel", "depthwise_kernel"), "weight"
    ),
    **dict.fromkeys(("bias", "b", "beta", "offset"), "bias"),
    **dict.fromkeys(("running_mean", "moving_mean", "mean"), "running_mean"),
    **dict.fromkeys(("running_var", "moving_variance", "moving_var", "var"), "running_var"),
    **dict.fromkeys(("recurrent_kernel", "U"), "recurrent"),
}
KERAS_EPS = (
    "BatchNormalization and LayerNormalization of Keras have eps = 0.001 where they say nothing, ours 1e-5: write it"
)
COUNTER = "num_batches_tracked"  # of PyTorch: how many batches an average is of, where it has no momentum
PARTS: Mapping[str, str] = {  # of attention, as ours are called
    **dict.fromkeys(("q", "q_proj", "q_lin", "wq", "to_q", "query_proj"), "query"),
    **dict.fromkeys(("k", "k_proj", "k_lin", "wk", "to_k", "key_proj"), "key"),
    **dict.fromkeys(("v", "v_proj", "v_lin", "wv", "to_v", "value_proj"), "value"),
    **dict.fromkeys(("o", "o_proj", "out_lin", "wo", "to_out", "out_proj", "out"), "result"),
}
_LAST = ("kernel", "recurrent_kernel", "depthwise_kernel")  # channels last
_COLLECTIONS = ("params", "batch_stats")  # of Flax: a layer has parts in each
_RECURRENT = re.compile(r"weight_hh_(l\d+(?:_reverse)?)")
_GATES = 3  # of a GRU
MARKS = re.compile(r"[\s*{}\[\],#=]")  # what means something in a rule


@dataclass(frozen=True, slots=True)
class Source:
    """What could be a variable of ours: the right side of a rule, the shape of that, and the arrays it is made of."""

    text: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    is_last: bool = False  # channels stand last there


@dataclass(slots=True)
class Layer:
    """A layer of a file: its name, and its arrays by their role."""

    name: str
    parts: dict[str, Source] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The arrays that it is made of."""
        return {n for s in self.parts.values() for n in s.names}


def natural(name: str) -> list[tuple[int, str]]:
    """Numbers in names count: 2 stands before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def layers(arrays: Mapping[str, Array]) -> list[Layer]:
    found: dict[str, Layer] = {}
    usable = (n for n in arrays if not n.endswith(COUNTER) and not MARKS.search(n))
    for prefix, names in _groups(usable).items():
        shapes = {leaf: arrays[name].shape for leaf, name in names.items()}
        for suffix, parts in _parts(names, shapes).items():
            name = f"{prefix}.{suffix}".strip(".")
            found.setdefault(name, Layer(name)).parts.update(parts)
    return [found[name] for name in sorted(found, key=natural)]


def notes(names: Iterable[str]) -> list[str]:
    """What arrays do not say."""
    keras = any(re.split(r"[./]", n.removesuffix(":0"))[-1] in ("moving_variance", "moving_var") for n in names)
    return [KERAS_EPS] if keras else []


def _groups(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The names of each layer, by what stands behind its last dot or slash."""
    groups: dict[str, dict[str, str]] = {}
    for name in names:
        *prefix, leaf = re.split(r"[./]", name.removesuffix(":0"))
        groups.setdefault(".".join(p for p in prefix if p not in _COLLECTIONS), {})[leaf] = name
    return groups


def _parts(names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, Source]]:
    """What each layer within a group has, by its name there ("" for the group itself)."""
    found: dict[str, dict[str, Source]] = {}
    rest = dict(names)
    for leaf in sorted(names):
        if (m := _RECURRENT.fullmatch(leaf)) is not None and {f"weight_ih_{m[1]}", leaf} <= rest.keys():
            found[m[1]] = _recurrent(m[1], rest, shapes)
            for n in [n for n in rest if n.endswith(f"h_{m[1]}")]:
                del rest[n]
    if "in_proj_weight" in rest:
        for kind in ("weight", "bias"):
            if (name := rest.pop(f"in_proj_{kind}", None)) is not None:
                rows, *more = shapes[f"in_proj_{kind}"]
                for k, part in enumerate(("query", "key", "value")):
                    text = f"{name}[{k * rows // 3}:{(k + 1) * rows // 3}]"
                    found.setdefault(part, {})[kind] = Source(text, (rows // 3, *more), (name,))
    if "recurrent_kernel" in rest and _is_gru(shapes["recurrent_kernel"][::-1]):
        return found
    for leaf, name in rest.items():
        found.setdefault("", {})[ROLES.get(leaf, leaf)] = _plain(leaf, name, shapes[leaf])
    return found


def _plain(leaf: str, name: str, shape: tuple[int, ...]) -> Source:
    if leaf not in _LAST or len(shape) < 2:
        return Source(name, shape, (name,))
    if len(shape) in (2, 3):
        return Source(f"{name}.T", shape[::-1], (name,), True)
    n = len(shape)
    order = (n - 1, n - 2, *range(n - 2)) if leaf == "kernel" else (n - 2, n - 1, *range(n - 2))
    return Source(f"{name}.permute({', '.join(map(str, order))})", tuple(shape[k] for k in order), (name,), True)


def _is_gru(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[0] == _GATES * shape[1]


def _recurrent(suffix: str, names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Source]:
    """A layer of `nn.RNN`, `nn.LSTM` or `nn.GRU`. Ours has one bias, which is the sum of both; but of a GRU the
    candidate's part in the state has its own, `e`."""
    own = {f"{kind}_{which}": f"{kind}_{which}_{suffix}" for kind in ("weight", "bias") for which in ("ih", "hh")}
    parts = {
        role: Source(names[own[key]], shapes[own[key]], (names[own[key]],))
        for role, key in (("weight", "weight_ih"), ("recurrent", "weight_hh"))
    }
    if not {own["bias_ih"], own["bias_hh"]} <= names.keys():
        return parts
    ih, hh, shape = names[own["bias_ih"]], names[own["bias_hh"]], shapes[own["bias_ih"]]
    if not _is_gru(shapes[own["weight_hh"]]):
        return {**parts, "bias": Source(f"{ih} + {hh}", shape, (ih, hh))}
    n = prod(shape)
    gates = n // _GATES * 2
    text = f"{ih}[0:{gates}] + {hh}[0:{gates}], {ih}[{gates}:{n}]"
    return {
        **parts,
        "bias": Source(text, shape, (ih, hh)),
        "e": Source(f"{hh}[{gates}:{n}]", (n - gates,), (hh,)),
    }
