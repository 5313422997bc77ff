"""What elaboration asks of the program that it is a part of, and what that knows of each variable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ...dsl import ast
from ...dsl.record import dataclass
from ...dsl.source import Span
from ..manifest import TrainSpec
from ..settings import Settings
from ..types.tensors import TensorType
from .faults import Faults
from .scope import Scope
from .values import Shared, Value

AVERAGE = "average/"  # before the path of a parameter: its running average


@dataclass(slots=True)
class Declared:
    """A parameter or state variable, met in the source; `init` is evaluated when the entry `init` is built."""

    path: str
    type: TensorType
    role: str
    init: ast.Expr | int | float
    drawn: bool
    scope: Scope | None
    span: Span | None
    asked: Span | None = None  # the user's call that made it


class Home(Protocol):
    """What elaboration asks of the program that it is a part of."""

    settings: Settings
    sizes: dict[str, int]  # of inputs, where they are known
    variables: dict[str, Declared]  # by path, as they were met
    has_rolled: bool  # it has taken turns for equal
    stacks: dict[str, str]  # by the path of a variable that is in one: the path of the stack
    averages: dict[str, Declared]  # by the path of a parameter: its average, where training keeps one
    averaging: Span | None  # the setting that asks for averages
    complete: bool  # all variables of the entries are declared
    warnings: dict[str, None]  # each once, in order
    models: dict[str, ast.Layer]
    model: ast.Layer | None
    train: ast.Train | None
    spec: TrainSpec | None
    faults: Faults | None

    @property
    def scope(self) -> Scope:
        """The definitions of the file."""

    def context(self, entry: str) -> Any:
        """A new `Context`, to grow the graph of an entry in."""

    def force(self, cx: Any, value: Value, span: Span) -> Value:
        """The value behind a `const` or `hyper`; anything else is itself."""

    def discover(self, model: str) -> None:
        """Make sure the variables of a model are known."""

    def inner_values(self, model: str) -> Iterable[str]:
        """The paths of the values inside a model that can be read where it was called."""

    def inner_layers(self, model: str) -> Mapping[str, Shared]:
        """The layers inside a model by path, as they are called in inference."""

    def macs(self, model: str, span: Span | None = None) -> int:
        """Multiply-accumulates of one example's forward pass; `span` is where they are asked for."""
