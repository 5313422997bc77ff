"""What elaboration notes of calls: which nodes each made, and of what. Outlines, pictures and exporters read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...dsl.record import dataclass
from ...dsl.source import Span
from ..graph.nodes import Builder
from ..types.sizes import Dim
from .values import Value


@dataclass(frozen=True, slots=True)
class Part:
    """One call of a layer, or of a function under a label: the nodes of `builder` from `first` up to `last` are its
    work, done `turns` times where scans stand around it. A call of the user's function without a label has no path."""

    path: str
    parent: str | None  # the instance it stands in
    kind: str
    builder: Builder
    turns: Dim
    first: int
    last: int
    results: tuple[str, ...]
    span: Span | None  # of the call


@dataclass(frozen=True, slots=True)
class Called:
    """One call of a function or a layer, of the library (`std`) or the user's, in `training` or not: what its
    parameters were, by name, and the values it ended with. The nodes of `builder` from `first` up to `last` are its
    work; `path` is that of a layer."""

    name: str
    std: bool
    training: bool
    path: str
    arguments: Mapping[str, Any]
    builder: Builder
    first: int
    last: int
    results: tuple[Value, ...]
