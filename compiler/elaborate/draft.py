"""A model that is being written: each statement is elaborated as it is added, so that what it makes has a type at once.

For who writes programs by program, as an import does: what a statement means is asked of the language, not known twice.
"""

from __future__ import annotations

from ...dsl import ast
from ...dsl.diagnostics import Diagnostic
from ...dsl.parser import parse
from ...dsl.source import Source
from ..settings import Settings
from ..types.tensors import TensorType
from .inputs import input_leaf
from .program import Program
from .scope import MISSING, Instance, Scope
from .values import Tensor


class Draft:
    """The body of a model of this name. Raises SourceError where a statement is wrong."""

    def __init__(self, model: str):
        self._program = Program(Source("<draft>", ""), Settings(), may_roll=False)
        self._cx = self._program.context("predict")
        self._scope = Scope(self._program.scope, Instance(model))

    def input(self, parameter: str) -> TensorType:
        """One more input, `x: f32[B, 3]`; names of sizes that are new are free."""
        (model,) = parse(Source("<draft>", f"model M({parameter}) {{ }}")).definitions
        assert isinstance(model, ast.Layer)
        (p,) = model.parameters
        value = input_leaf(self._cx, p, self._scope)
        self._scope.bind(p.name, value, p.span)
        return value.type

    def add(self, statement: str) -> None:
        """Elaborate one more statement. Raises SourceError; what it would have named has then no meaning."""
        (made,) = parse(Source("<draft>", f"fn draft() {{\n{statement}\n}}")).definitions
        assert isinstance(made, ast.Function) and isinstance(made.body, tuple)
        self._cx.run(made.body, self._scope, last=False)

    def value(self, name: str) -> TensorType | bool | int | float:
        """The type of a tensor that was named; a number that is known at compile time is itself."""
        value = self._scope.lookup(name)
        if isinstance(value, bool | int | float):
            return value
        assert isinstance(value, Tensor), f"{name} is {value!r}"
        return value.type

    def is_taken(self, name: str) -> bool:
        """Whether a name means something already: in the model, in the library, or to the compiler."""
        return self._scope.lookup(name) is not MISSING

    @staticmethod
    def said(e: Exception) -> str:
        """What an error of elaboration says, in a line."""
        diagnostics: tuple[Diagnostic, ...] = getattr(e, "diagnostics", ())
        return diagnostics[0].message if diagnostics else str(e)
