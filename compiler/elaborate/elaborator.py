"""A context that can elaborate: the walks over the syntax tree, as methods of what they are called on."""

from __future__ import annotations

from ...dsl.record import dataclass
from . import calls, expressions, statements
from .context import Context


@dataclass(slots=True)
class Elaborator(Context):
    # assigned, not wrapped: a call costs no further frame of Python's stack, which bounds how deep programs may nest
    evaluate = expressions.evaluate
    index = expressions.index
    as_function = calls.as_function
    run = statements.run
