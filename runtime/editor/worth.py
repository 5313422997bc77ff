"""What the places of a text are worth: types, numbers, sizes, as elaboration met them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ...compiler.elaborate import Program, training
from ...compiler.elaborate.context import Context
from ...compiler.elaborate.faults import Faults
from ...compiler.elaborate.values import Results, Tensor, is_static
from ...compiler.session import without_collection
from ...compiler.settings import Settings
from ...compiler.types.tensors import TensorType
from ...dsl import ast
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import NncError
from ...dsl.source import Source, Span

Worth = TensorType | str  # a tensor's type, or a compile-time value in words


class Stopped(BaseException):
    """The text has changed: what is being found out is of no use. No fault, so nothing recovers from it."""


@dataclass(eq=False)
class Run:
    """One elaboration of a text: by place of its file, what was met there, each once and in order; and the calls of
    layers, with what variables these own."""

    text: str
    name: str
    values: dict[tuple[int, int], dict[Worth, None]] = field(default_factory=dict)
    parts: dict[tuple[int, int], list[str]] = field(default_factory=dict)  # the paths of the layers that a call made
    variables: dict[str, int] = field(default_factory=dict)  # elements of each weight and bias, by path
    sizes: dict[str, int] = field(default_factory=dict)  # that were taken from the data

    stopped: bool = False  # nobody wants it any more: elaboration ends at the next name

    def met(self, span: Span, value: Any) -> None:
        if self.stopped:
            raise Stopped
        if span.source.name == self.name:
            known = self.values.setdefault((span.start, span.end), {})
            for w in worth(value):
                known[w] = None

    def note(self, contexts: Iterable[Context], program: Program) -> None:
        """What contexts know of calls, and the program of variables."""
        for cx in contexts:
            for part in cx.parts:
                if part.span is not None and part.span.source.name == self.name and part.path:
                    self.parts.setdefault((part.span.start, part.span.end), []).append(part.path)
        for path, d in program.variables.items():
            if d.role in ("weight", "bias") and isinstance(d.type.size, int):
                self.variables[path] = d.type.size


def worth(value: Any) -> Iterator[Worth]:
    match value:
        case Tensor():
            yield value.type
        case Results(items=items):
            yield ", ".join(str(w) for item in items for w in worth(item))
        case bool():
            yield str(value).lower()
        case _ if is_static(value):
            plain = repr(value) if isinstance(value, str) else str(value)
            yield f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else plain


class Look(Program):
    """A program of which one entry is elaborated: the step of `training`, or predictions."""

    def __init__(self, source: Source, settings: Settings, faults: Faults, run: Run, training: bool):
        self.run, self.training, self.contexts = run, training, list[Context]()
        super().__init__(source, settings, faults=faults)

    def context(self, entry: str) -> Context:
        self.contexts.append(super().context(entry))
        return self.contexts[-1]

    def _grow(self, model: ast.Layer) -> None:
        if self.train is not None:
            self.spec = training.spec(self)
        self._discovered.add(model.name)
        cx = self.context("train" if self.training and self.train is not None else "predict")
        with cx.recovering():
            self.graph(cx.builder.name, cx)
        self.run.note(self.contexts, self)


def look(source: Source, settings: Settings, training: bool) -> tuple[Run, tuple[Diagnostic, ...]]:
    """Elaborate one entry; what is wrong with it."""
    run, faults = Run(source.text, source.name), Faults()
    try:
        with without_collection():
            Look(source, replace(settings, met=run.met), faults, run, training)
    except NncError as e:
        faults.tell(e)
    return run, tuple(d for e in faults.errors for d in e.diagnostics)
