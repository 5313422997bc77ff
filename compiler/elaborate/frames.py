"""The scans around a point: what the body that grows there has of its own."""

from __future__ import annotations

from collections.abc import Mapping

from ...dsl.record import dataclass, field
from ...dsl.source import Span
from ..graph.nodes import Builder
from ..types.sizes import Dim
from ..types.tensors import TensorType
from .values import Tensor


class NotRolled(Exception):
    """Turns that were taken for equal are not, or something asks for one of them: the program is to be written out."""


@dataclass(slots=True)
class Turn:
    """What one of several equal turns knows of itself: see `rolled`."""

    draws: Mapping[str, int]  # by site, how many a turn makes
    members: dict[str, Tensor] = field(default_factory=dict)  # by the path of a stack: its variable of this turn
    updates: dict[str, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Frame:
    """The body of a `scan` under construction: a graph of its own, whose inputs are the carried values and what it
    captures from around it."""

    name: str  # of the index, as it is written
    index: str  # its symbol, unlike any other
    count: Dim
    builder: Builder
    collects: dict[str, Span]  # the names that statements of the body collect
    captured: dict[str, str] = field(default_factory=dict)  # node around the scan -> input of the body
    collected: dict[str, tuple[Tensor, int, Span]] = field(default_factory=dict)  # by name, with the axis of the index
    turn: Turn | None = None  # where the scan stands for equal turns, or for what is done to each variable of a stack


def add_input(b: Builder, stem: str, type_: TensorType, span: Span | None) -> str:
    """An input of a scan's body, called by a name not yet taken."""
    name = stem if stem not in b.nodes else b.fresh(stem)
    return b.emit("input", name=name, type=type_, span=span)
