"""The programs of estimators: those that come with them, what a program says of itself, and how one is pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...compiler.elaborate.entries import find_entries
from ...compiler.elaborate.modules import Modules
from ...compiler.elaborate.scope import MISSING
from ...compiler.session import Session
from ...dsl import ast
from ...dsl.errors import ArgumentTypeError, DataError, error
from ...dsl.source import Source
from ..api import compile
from ..call.column import Array
from ..call.messages import argument_error, listed
from ..model import Model
from ..store.checkpoint import from_bytes, to_bytes

WEIGHT = "sample_weight"  # the input of a train block that says how much each example counts

CLASSIFIER = """\
hyper classes: int = 2
hyper width: int = 100
hyper depth: int = 1
hyper lr: float = 1e-3
hyper decay: float = 1e-4

model Mlp(x: f32[B, features]) -> (logits: f32[B, classes]) {
    h = x
    repeat depth { h = h |> Dense(width) |> relu }
    logits = h |> Dense(classes)
}

train Mlp(x, label: i32[B], sample_weight: f32[B]) {
    loss      = weighted_mean(cross_entropy(logits, label), sample_weight) + decay * l2(weights)
    optimizer = Adam(lr)
    batch     = 64
    epochs    = 200
}
"""

REGRESSOR = """\
hyper targets: int = 1
hyper width: int = 100
hyper depth: int = 1
hyper lr: float = 1e-3
hyper decay: float = 1e-4

model Mlp(x: f32[B, features]) -> (y: f32[B, targets]) {
    h = x
    repeat depth { h = h |> Dense(width) |> relu }
    y = h |> Dense(targets)
}

train Mlp(x, target: f32[B, targets], sample_weight: f32[B]) {
    loss      = weighted_mean(squared_error(y, target), sample_weight) + decay * l2(weights)
    optimizer = Adam(lr)
    batch     = 64
    epochs    = 200
}
"""


@dataclass(frozen=True, slots=True)
class Outline:
    """What a program says of itself before its sizes are known."""

    source: Source
    axes: tuple[str | None, ...]  # of the first input of its model: the names of those that are free
    hypers: frozenset[str]

    @classmethod
    def of(cls, source: Source) -> Outline:
        modules = Modules(source)
        model = find_entries(modules, None, Source("<beside>", "")).model
        first = model.parameters[0].type if model is not None and model.parameters else None
        axes = tuple(
            d.id if isinstance(d, ast.Name) and modules.scope.lookup(d.id) is MISSING else None
            for d in (first.dims if first is not None and first.dims is not None else ())
        )
        files = (module.definitions for module, _ in modules.files.values())
        return cls(source, axes, frozenset(d.name for found in files for d in found if isinstance(d, ast.Hyper)))

    @property
    def rank(self) -> int:
        return len(self.axes)

    def sizes(self, X: Array) -> dict[str, int]:
        """The free sizes of these features, but how many there are."""
        if X.ndim != self.rank:
            return {}
        named = zip(self.axes[1:], X.shape[1:], strict=True)
        return {name: n for name, n in named if name is not None and name != self.axes[0]}


def kept(net: Model) -> dict[str, Any]:
    """A network as it is pickled: its program, its settings and a checkpoint, in types of Python alone."""
    session, m = net.session, net.manifest
    assert isinstance(session, Session)
    s = session.settings
    return {
        "name": session.source.name,
        "sources": dict(m.sources),
        "files": dict(m.files),
        "settings": {"hyper": dict(s.hyper), "sizes": dict(s.sizes), "dtype": s.dtype, "threads": net.threads},
        "learned": to_bytes(net),
    }


def restored(state: Mapping[str, Any]) -> Model:
    """The network that was `kept`. Its program need not be where it was, but what that imports (E0624)."""
    sources, files = state["sources"], state["files"]
    net = compile(Source(state["name"], sources[state["name"]]), **state["settings"])
    now = {**net.manifest.sources, **net.manifest.files}
    if changed := [n for n, what in {**sources, **files}.items() if now.get(n) != what]:
        raise error("E0624", f"{listed(changed)}: not as it was when the estimator was pickled", kind=DataError)
    from_bytes(net, state["learned"])
    return net


def roles(net: Model) -> tuple[str, str, bool]:
    """The inputs of the train block that are the features and the target, and whether there are weights (E0604)."""
    inputs = net.train_spec.inputs
    rest = [n for n in inputs if n != WEIGHT]
    if len(rest) != 2:
        raise argument_error(
            "E0604",
            f"an estimator gives X, y and perhaps {WEIGHT}, but the train block of {net.name} takes {listed(inputs)}",
            kind=ArgumentTypeError,
        )
    return rest[0], rest[1], WEIGHT in inputs
