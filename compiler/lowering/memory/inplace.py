"""Whether a value may be made where another lies that is read for it: a result over an operand, an update over its
variable."""

from __future__ import annotations

from collections.abc import Mapping

from ...graph.boxes import side_by_side
from ...graph.nodes import Graph, may_fail
from ...graph.ops import OPS
from ...graph.ops.op import LOOP, MAP, REDUCE
from .values import Value, shift, types


class Overwrites:
    """Whether a kernel reads an operand only at the index at which it then writes a result of the same type. `equal`
    has for fused kernels the body of the first that is the same but for its names: only that one is looked at."""

    def __init__(self, graph: Graph, root: Mapping[str, Value], equal: Mapping[str, Graph]):
        self.graph, self.root, self._equal = graph, root, equal
        self._known: dict[tuple[Graph, tuple[int, ...], int], bool] = {}

    def __call__(self, kernel: str, result: int, operand: Value) -> bool:
        graph, node = self.graph, self.graph[kernel]
        given = tuple(k for k, a in enumerate(node.args) if self.root[a] == operand)
        if any(graph[node.args[k]].type != types(node)[result] or shift(graph, node.args[k]) != 0 for k in given):
            return False
        if OPS[node.op].kind == LOOP:  # carries it on
            return given == (result,) and result < node.attrs["carries"]
        if node.op != "fused":
            return OPS[node.op].kind == MAP
        body = self._equal.get(kernel, node.attrs["body"])
        key = body, given, result
        if key not in self._known:
            inputs = [n.name for n in body if n.op == "input"]
            self._known[key] = _overwrites(body, [inputs[k] for k in given], body.outputs[result][1])
        return self._known[key]


def readers_to_wait_for(
    overwrites: Overwrites, value: Value, old: Value | None, readers: Mapping[Value, list[str]]
) -> list[str] | None:
    """The kernels that must run before one may write a variable's new value over the old one; None where it may not."""
    maker = value[0]
    if may_fail(overwrites.graph[maker]):
        return None  # with a part of it written
    if old is None:
        return []
    if maker in readers.get(old, ()) and not overwrites(maker, value[1], old):
        return None
    return [r for r in readers.get(old, ()) if r != maker]


def _overwrites(body: Graph, operands: list[str], result: str) -> bool:
    """That of the inputs of a fused body. What they flow into elementwise is read at the point of the loop. In a
    fold a value of the kept axes is stored when all stages of its row are done; one of the whole box is stored in its
    stage, so no later stage may read the operand."""
    folds = [n for n in body if OPS[n.op].kind == REDUCE]
    box = body[folds[0].args[0]].shape if folds else ()
    kept = tuple(k for k in range(len(box)) if k not in folds[0].attrs["axes"]) if folds else ()
    row = bool(folds) and body[result].shape != box
    stage: dict[str, int] = {}  # in which a value can be computed first
    for n in body:
        stage[n.name] = max((stage[a] for a in n.args), default=0) + (OPS[n.op].kind == REDUCE)
    seen, stack = set(operands), list(operands)
    while stack:
        name = stack.pop()
        for user in body.users(name):
            match OPS[user.op].kind:
                case "map":
                    pass
                case "view" if side_by_side(body, user) and any(v == user.name for _, v in body.outputs):
                    continue  # stored part by part, where the loop stands
                case "view" if row and user.op == "broadcast" and user.shape == box and user.attrs["axes"] == kept:
                    pass
                case "reduce" if row:
                    pass
                case "reduce" if stage[name] <= stage[result]:
                    continue  # what comes of it does not read the operand again
                case _:
                    return False
            if user.name not in seen:
                seen.add(user.name)
                stack.append(user.name)
    return row or all(stage[v] <= stage[result] for _, v in body.outputs if v in seen)
