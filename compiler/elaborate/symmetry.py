"""A warning: units that start equal stay equal.

A weight matrix whose first value is one constant gives every unit of its layer the same value and the same gradient for
ever, once a nonlinearity stands behind it (Rumelhart, Hinton and Williams 1986 call for random starts to break this
symmetry). A linear layer at the end is harmless: its units have different targets.
"""

from __future__ import annotations

from ..graph.nodes import Graph
from ..graph.ops import OPS
from ..graph.ops.op import CONTRACT, VIEW
from ..types.stacks import is_stack
from .context import Context
from .home import AVERAGE, Declared

NONLINEAR = ("tanh", "logistic", "maximum", "erf", "sin", "cos")
LINEAR = ("add", "sub", "mul")  # beside the contraction, and what has the elements of its operands elsewhere


def warnings(cx: Context, graph: Graph) -> list[str]:
    """What to say about the weights of a forward graph; `cx` is there to evaluate initial values in."""
    found = []
    for node in graph:
        if node.op != "param" or is_stack(node.attrs["path"]):  # what is true of turns is true of the first
            continue
        d = cx.program.variables[node.attrs["path"].removeprefix(AVERAGE)]
        if d.role == "weight" and d.type.rank >= 2 and (d.type.shape[0] != 1) and _is_constant(cx, d):
            behind = _nonlinearity(graph, node.name)
            if behind is not None:
                found.append(
                    f"{d.asked or d.span}: the weight `{d.path}` starts as one constant and feeds {behind}, so its "
                    "units stay equal: draw it at random, as `glorot_uniform` does"
                )
    return found


def _is_constant(cx: Context, d: Declared) -> bool:
    if isinstance(d.init, int | float) or d.scope is None:
        return True
    cx.site, cx.shape = d.path, d.type.shape
    with cx.calling(d.path, d.asked):
        value = cx.evaluate(d.init, d.scope)
    return isinstance(value, int | float)


def _nonlinearity(graph: Graph, start: str) -> str | None:
    """The first nonlinearity that the value reaches through linear operators."""
    seen, waiting = {start}, [start]
    while waiting:
        for user in graph.users(waiting.pop()):
            if user.op in NONLINEAR:
                return user.op
            linear = user.op in LINEAR or OPS[user.op].kind in (CONTRACT, VIEW)
            if linear and user.name not in seen:
                seen.add(user.name)
                waiting.append(user.name)
    return None
