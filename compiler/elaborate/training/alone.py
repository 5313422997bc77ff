"""A body without a signature: of a definition whose own does not parse, or of a train block whose model is unknown.

Nobody can call it, so it is no entry; but what is wrong inside, whatever it is called with, can be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ....dsl import ast
from ....dsl.tree import Tree, walk
from ..context import Context
from ..scope import Instance, Scope
from ..values import POISON, Defined
from ..variables import GROUPS
from .settings import SETTINGS

STEP_NAMES = ("t", "epoch", "steps")


def alone(cx: Context, d: ast.Unread | ast.Train, others: Sequence[Tree]) -> None:
    """Evaluate the body of a definition, all that it could be given being poison. `others` are those like it."""
    name = d.model if isinstance(d, ast.Train) else d.gives[0]
    names = [p.name for p in d.parameters] if isinstance(d, ast.Train) else d.names
    scope = Scope(cx.program.scope, Instance(name))
    inside = dict.fromkeys(_inside(cx, name, others), POISON)
    scope.names |= {**dict.fromkeys((*names, *GROUPS), POISON), **inside}
    if not inside:
        scope.doubtful.add("*")
    cx.ambient = dict.fromkeys(STEP_NAMES, POISON)
    cx.learning = True
    for item in d.body:
        with cx.recovering():
            _item(cx, item, scope)


def _inside(cx: Context, model: str, others: Sequence[Tree]) -> Iterator[str]:
    """What a train block may know of its model, or of any where that is unknown: inputs, results and variables."""
    found = cx.program.scope.lookup(model)
    known = [found.definition] if isinstance(found, Defined) else list(cx.program.models.values())
    for d in (*known, *(d for d in others if isinstance(d, ast.Unread))):
        yield from (v.name for v in walk(d) if isinstance(v, ast.Variable | ast.Parameter))
        yield from (r.name or "output" for r in getattr(d, "results", ()))


def _item(cx: Context, item: Tree, scope: Scope) -> None:
    match item:
        case ast.Assign(targets=(ast.Target(name=name, indices=None),), value=e) if name in SETTINGS:
            scope.bind(name, POISON, item.span)
            if SETTINGS[name].kind not in ("word", "source"):
                cx.evaluate(e, scope)
        case ast.Metric(name=name, value=e) | ast.Minimize(name=name, value=e):
            scope.bind(name, POISON, item.span)
            cx.evaluate(e, scope)
        case ast.StopWhen(condition=e):
            cx.evaluate(e, scope)
        case ast.UpdateRule(body=body):
            cx.run(body, scope, last=False)
        case _:
            cx.run((item,), scope, last=False)  # type: ignore[arg-type]
