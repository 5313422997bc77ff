"""What is done to variables one by one, where equal ones are stored as a stack: a scan over them, elaborated once for
all. So whatever looks at one variable (its norm, its size, one of its axes) means one here as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...dsl.source import Span
from ..graph.nodes import Builder
from ..graph.ops import OPS
from ..types.stacks import is_stack, members
from .bodies import Body, emit, index_symbol, inside
from .context import Context
from .frames import Frame, NotRolled, Turn
from .lifted import lifted
from .values import Tensor, Value


@contextmanager
def member(cx: Context, path: str, span: Span) -> Iterator[Callable[[Tensor], Tensor]]:
    """What is done in here is done to one variable: to that at a path, or to each of the stack that is there. Gives
    what makes a value of one of a value of all."""
    if not is_stack(path):
        yield lambda value: value
        return
    frame = _frame(cx, path)
    with inside(cx, frame):
        yield cx.of_turn
    finish(cx, span, {}, Body(frame, {}))


def each(cx: Context, path: str, span: Span, work: Callable[..., Value], *values: Tensor) -> Any:
    """`work` on values of a variable; of a stack on those of each of its variables."""
    if not is_stack(path):
        return work(*values)
    frame = _frame(cx, path)
    with inside(cx, frame):
        result = work(*map(cx.of_turn, values))
        if not isinstance(result, Tensor):
            raise NotRolled(path)
        frame.collected["result"] = (cx.here(result, span), 0, span)
    return finish(cx, span, {}, Body(frame, {}))["result"]


def _frame(cx: Context, path: str) -> Frame:
    if cx.frames:
        raise NotRolled(path)
    return Frame("", index_symbol(cx, "turn"), len(members(path)), Builder("body", OPS), {}, turn=Turn({}))


def finish(cx: Context, span: Span, given: dict[str, Tensor], body: Body) -> dict[str, Tensor]:
    """What equal turns carried and collected, by name. What each does to its variables is done to the stacks."""
    assert body.frame.turn is not None
    updates = body.frame.turn.updates
    body.frame.collected |= {path: (value, 0, span) for path, value in updates.items()}
    results = lifted(cx, body.frame) if not given else None
    if results is None:
        results = emit(cx, span, given, body)
    for path in updates:
        cx.update(path, results.pop(path))
    return results
