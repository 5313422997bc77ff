"""What there is to look at in a model: its input, its scores, its inner values, its filters.

In: a model with one float input. Out: arrays, and `probe`: the same program with exports of ours beside its own, so
that every method is a line of `.nn`, compiled like the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from ...compiler.manifest import Port
from ...compiler.session import Session
from ...compiler.types.tensors import TensorType
from ...dsl.errors import ArgumentTypeError
from ..call.arrays import bind
from ..call.column import Array
from ..call.messages import argument_error, unknown
from ..check.twin import twin
from ..model import Model
from ..settings import integer

_AT_ONCE = 512  # examples of a prediction
TURN, SIZE, REACH = 0.2, 1.15, 14  # of a view: radians, how much larger, and the part of a side that it is moved


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that can be looked at. `scores` is its first result as an expression, `Net(x)` or `Net(x)[0]`."""

    net: Model
    name: str
    input: Port
    output: Port
    scores: str

    @property
    def axes(self) -> tuple[Any, ...]:
        """The axes of one example."""
        return self.input.shape[1:]

    def image(self) -> tuple[Any, Any, Any]:
        """Channels, height and width of an example, a vector of square length among them (E0602)."""
        if not self.is_image:
            raise argument_error("E0602", f"images are needed, but `{self.input.name}` is {self.input.type}")
        if len(self.axes) == 1:
            return 1, isqrt(self.axes[0]), isqrt(self.axes[0])
        channels, height, width = (1, *self.axes)[-3:]
        return channels, height, width

    @property
    def is_image(self) -> bool:
        """Whether an example can be seen as an image."""
        match self.axes:
            case (int(n),):
                return n > 1 and isqrt(n) ** 2 == n
        return len(self.axes) in (2, 3)

    def images(self, x: str) -> str:
        """A batch of inputs as images, f32[B, C, H, W], in `.nn`."""
        _, height, width = self.image()
        return x if len(self.axes) == 3 else f"reshape({x}, [-1, 1, {height}, {width}])"

    def motion(self) -> str:
        """How far a view is turned, scaled and moved, as arguments of `views`."""
        _, height, width = self.image()
        return f"{TURN}, {SIZE}, {height} / {REACH}, {width} / {REACH}"

    def inputs(self, x: str) -> str:
        """The way back."""
        return x if len(self.axes) == 3 else f"reshape({x}, [-1, {', '.join(map(str, self.axes))}])"


def subject(net: Model, of: tuple[str, ...] = ("f32", "f64")) -> Subject:
    """Raises E0609 where there is no model, E0602 where it has not one input, a batch of one of these dtypes."""
    _check_model(net)
    signature = net.entry("predict").signature
    ports = signature.inputs
    if len(ports) != 1 or ports[0].dtype not in of or len(ports[0].shape) < 2:
        has = ", ".join(f"{p.name}: {p.type}" for p in ports)
        raise argument_error(
            "E0602",
            f"only a model with one input, a batch of {' or '.join(of)}, can be looked into "
            f"so; {net.name} takes ({has})",
            kind=ArgumentTypeError,
        )
    several = len(signature.outputs) > 1
    scores = f"{net.name}({ports[0].name})" + ("[0]" if several else "")
    return Subject(net, net.name, ports[0], signature.outputs[0], scores)


def classifier(net: Model) -> Subject:
    """A model whose first result is a score for each class (E0602)."""
    s = subject(net)
    if len(s.output.shape) != 2 or s.output.dtype != s.input.dtype:
        raise argument_error("E0602", f"a score for each class is needed, but {s.scores} is {s.output.type}")
    return s


def _check_model(net: Model) -> None:
    if net.manifest.model is None:
        raise argument_error("E0609", "the program has no model to look into")


def examples(s: Subject, x: Any) -> Array:
    """A batch of inputs, its shape and dtype checked (E0601, E0602)."""
    arrays, _ = bind("predict", s.net.entry("predict").wants, (x,))
    array: Array = arrays[0]
    return array


def labels(s: Subject, x: Array, label: Any) -> Array:
    """A class for each example of `x` (E0601, E0602, E0603)."""
    found = np.asarray(label)
    classes = s.output.shape[-1]
    if found.dtype.kind not in "iu":
        raise argument_error("E0602", f"label must be whole numbers, got {found.dtype}", kind=ArgumentTypeError)
    if found.shape != x.shape[:1]:
        raise argument_error("E0601", f"label must be one class for each of {len(x)} examples, got {found.shape}")
    if isinstance(classes, int) and found.size and not (0 <= found.min() and found.max() < classes):
        raise argument_error("E0603", f"label must be from 0 to {classes - 1}, got {found.min()} to {found.max()}")
    return found.astype(np.int32)


def scores(net: Model, x: Array) -> Array:
    """The model's first result; of many examples, so many at a time that memory stays bounded."""
    parts = [net.predict(x[k : k + _AT_ONCE]) for k in range(0, max(len(x), 1), _AT_ONCE)]
    return np.concatenate([p[0] if isinstance(p, tuple) else p for p in parts])


def probe(s: Subject, text: str) -> Model:
    """The same program and parameters, with the exports in `text` beside its own; `scores` is there the function of the
    input that gives the model's first result."""
    return twin(s.net, beside=f"fn scores({s.input.name}) = {s.scores}\n{text}")


def labelled(s: Subject, value: str, parameters: str = "", before: str = "") -> Model:
    """`probe` with one export `look(x, label, ..)`, whose value is shaped like the input; `before` it stands what it
    calls."""
    more = f", {parameters}" if parameters else ""
    inputs = f"x: {s.input.type}, label: i32[{s.input.shape[0]}]{more}"
    return probe(s, f"{before}\nexport look({inputs}) -> {s.input.type} = {value}")


def inner_types(net: Model) -> Mapping[str, TensorType]:
    """The inner values of the model by path: labelled calls and layers, in the order in which they are computed."""
    _check_model(net)
    assert isinstance(net.session, Session)
    return net.session.program.inner_values(net.name)


def layer(net: Model, name: str) -> tuple[str, TensorType]:
    """The path and type of an inner value; the model's name may be left out (E0608 where there is none)."""
    types = inner_types(net)
    path = name if name in types else f"{net.name}.{name}"
    if path not in types:
        raise unknown("layer", name, [p.removeprefix(f"{net.name}.") for p in types])
    return path, types[path]


def check_unit(what: str, type: TensorType, k: int) -> int:
    """A number of a unit along the second axis (E0602, E0603)."""
    if len(type.shape) < 2:
        raise argument_error("E0603", f"{what} is {type}: it has no axis of units")
    units = type.shape[1]
    if isinstance(units, int):
        integer(f"the unit of {what}", k, 0, units - 1)
    return integer(f"the unit of {what}", k, 0)


def activations(net: Model, x: Any, name: str) -> Array:
    """The value of a layer or a labelled call for a batch of inputs, whole numbers among them."""
    s = subject(net, ("f32", "f64", "i32", "i64"))
    path, type = layer(net, name)
    values: Array = probe(
        s,
        f"""
    export look(x: {s.input.type}) -> {type} {{
        y = scores(x)
        return {path}
    }}""",
    ).call("look", x)
    return values


def first_with_filters(net: Model) -> str:
    """The name of the first layer that has filters (E0608)."""
    for path, a in net.params.items():
        if path.endswith(".W") and a.ndim > 1:
            return path.removeprefix(f"{net.name}.").removesuffix(".W")
    raise argument_error("E0608", f"no layer of {net.name} has filters")


def filters(net: Model, name: str) -> Array:
    """The weights of a layer, `[filters, ...]` as they are stored."""
    path, _ = layer(net, name)
    weights = {p.removeprefix(f"{path}."): a for p, a in net.params.items() if p.startswith(f"{path}.")}
    found = weights.get("W")
    if found is None or found.ndim < 2:
        raise argument_error(
            "E0608", f"{path} has no filters: its parameters are {', '.join(weights) if weights else 'none'}"
        )
    return found
