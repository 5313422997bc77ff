"""Nodes that hold graphs: a choice between two, and a loop of few turns, written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ....compiler.types.sizes import Dim, Size
from .refusals import Refused
from .text import Text
from .types import initial_dtype, tensor
from .values import Value, known

MAX_TURNS = 256  # of a loop that is written out
FEW_TURNS = 4  # of a loop that is better written out than a scan


class Import(Protocol):
    """What is asked of an import."""

    proto: Any  # the `onnx` package
    text: Text

    def run(
        self, nodes: Sequence[Any], values: dict[str, Value], attributes: Mapping[str, Any], depth: int = 0
    ) -> None:
        """Write nodes; `values` by name grow by what they make."""


Control = Callable[["Import", Any, dict[str, Value], Mapping[str, Any], int], list[Value]]


def choose(state: Import, node: Any, values: dict[str, Value], outer: Mapping[str, Any], depth: int) -> list[Value]:
    """If: the branch that is taken, where that is known; otherwise both, and of each result the one that counts."""
    condition = _read(node, 0, values)
    branches = {a.name: a.g for a in node.attribute}
    if "then_branch" not in branches or "else_branch" not in branches:
        raise Refused("it lacks one of its two branches")
    if condition.known is not None and condition.known.size == 1:
        taken = "then_branch" if condition.known.reshape(-1)[0] else "else_branch"
        return _inner(state, branches[taken], values, outer, depth)
    if condition.rank:
        condition = state.text.emit("reshape({0}, [])", condition)
    yes, no = (_inner(state, branches[b], values, outer, depth) for b in ("then_branch", "else_branch"))
    if [v.type for v in yes] != [v.type for v in no]:
        raise Refused("its branches give tensors of other types, and which is taken depends on data")
    return [state.text.emit("where({0}, {1}, {2})", condition, a, b) for a, b in zip(yes, no, strict=True)]


def repeat(state: Import, node: Any, values: dict[str, Value], outer: Mapping[str, Any], depth: int) -> list[Value]:
    """Loop: a scan; of few turns, or where it may end early, turn by turn, as often as is known."""
    most = _count(_read(node, 0, values)) if _has(node, 0) else None
    going = _single(_read(node, 1, values), "whether it begins") if _has(node, 1) else True
    body = next((a.g for a in node.attribute if a.name == "body"), None)
    if body is None or len(body.input) < 2:
        raise Refused("it has no body")
    carried = [_read(node, k, values) for k in range(2, len(node.input))]
    names = [i.name for i in body.input]
    if len(names) != len(carried) + 2 or len(body.output) <= len(carried):
        raise Refused(f"its body has {len(names)} inputs and {len(body.output)} outputs for {len(carried)} values")
    if most is not None and going and not (isinstance(most, int) and most <= FEW_TURNS) and _goes_on(body):
        return _scan(state, body, names, most, carried, values, outer, depth)
    collected: list[list[Value]] = [[] for _ in body.output[len(carried) + 1 :]]
    turn = 0
    while going and (most is None or _whole(most) > turn):
        if turn == MAX_TURNS:
            raise Refused(f"it turns more than {MAX_TURNS} times, as often as a loop is written out")
        given = dict(zip(names, [known(turn, "i64"), known(True, "bool"), *carried], strict=True))
        made = _inner(state, body, values | given, outer, depth)
        going = _single(made[0], "whether it goes on")
        carried = made[1 : len(carried) + 1]
        for column, value in zip(collected, made[len(carried) + 1 :], strict=True):
            column.append(value)
        turn += 1
    if not turn and collected:
        raise Refused("it collects values of no turns")
    return [*carried, *(_stacked(state, column) for column in collected)]


def _count(value: Value) -> Dim:
    """How often a loop turns: a number, or a size."""
    if value.known is None or value.known.size != 1:
        raise Refused("how often it turns must be known, not computed")
    n = value.known.reshape(-1)[0]
    return n if isinstance(n, Size) else max(int(n), 0)


def _whole(n: Dim) -> int:
    if isinstance(n, Size):
        raise Refused("how often it turns depends on a size, and it may end early")
    return n


def _goes_on(body: Any) -> bool:
    """Whether a body always asks for one more turn: by a constant, or by what it was given."""
    wanted = body.output[0].name
    makers = {o: n for n in body.node for o in n.output}
    while wanted in makers and makers[wanted].op_type == "Identity":
        wanted = makers[wanted].input[0]
    if wanted in (t.name for t in body.initializer):
        return all(t.raw_data == b"\x01" or list(t.int32_data) == [1] for t in body.initializer if t.name == wanted)
    maker = makers.get(wanted)
    if maker is not None and maker.op_type == "Constant":
        return any(a.t.raw_data == b"\x01" or list(a.t.int32_data) == [1] for a in maker.attribute if a.name == "value")
    return bool(wanted == body.input[1].name)


def _scan(
    state: Import, body: Any, names: list[str], count: Dim, carried: list[Value], values: dict[str, Value],
    outer: Mapping[str, Any], depth: int,
) -> list[Value]:  # fmt: skip
    """A loop that ends after `count` turns as a scan."""

    def turn(text: Text, number: Value, before: list[Value]) -> tuple[list[Value], list[Value]]:
        given = dict(zip(names, [number, known(True, "bool"), *before], strict=True))
        around, state.text = state.text, text
        try:
            _, *made = _inner(state, body, values | given, outer, depth)
        finally:
            state.text = around
        return made[: len(carried)], made[len(carried) :]

    last, collected = state.text.scan(count, carried, turn)
    return [*last, *collected]


def along(state: Import, node: Any, values: dict[str, Value], outer: Mapping[str, Any], depth: int) -> list[Value]:
    """Scan: turn by turn along axes of a size that is known, values being passed on, others stacked."""
    attributes = {a.name: state.proto.helper.get_attribute_value(a) for a in node.attribute}
    if "body" not in attributes or "num_scan_inputs" not in attributes or not all(node.input):
        raise Refused("it lacks its body, or is the Scan of opset 8")
    body, count = attributes["body"], len(node.input) - attributes["num_scan_inputs"]
    carried, read = ([_read(node, k, values) for k in ks] for ks in (range(count), range(count, len(node.input))))
    names = [i.name for i in body.input]
    if count < 0 or len(names) != len(node.input) or len(body.output) < count or not read:
        raise Refused(f"its body has {len(names)} inputs and {len(body.output)} outputs for {len(node.input)} values")
    outputs = len(body.output) - count
    axes = _axes(attributes.get("scan_input_axes", [0] * len(read)), [v.rank for v in read])
    turns = {v.shape[a] for v, a in zip(read, axes, strict=True)}
    turns_ = next(iter(turns))
    if len(turns) > 1 or not isinstance(turns_, int) or not 0 < turns_ <= MAX_TURNS:
        raise Refused(f"it turns {' and '.join(map(str, turns))} times: up to {MAX_TURNS} turns are written out")
    backwards = attributes.get("scan_input_directions", [0] * len(read))
    collected: list[list[Value]] = [[] for _ in range(outputs)]
    for turn in range(turns_):
        at = [turns_ - 1 - turn if back else turn for back in backwards]
        parts = [_part(state, v, a, k) for v, a, k in zip(read, axes, at, strict=True)]
        made = _inner(state, body, values | dict(zip(names, [*carried, *parts], strict=True)), outer, depth)
        carried = made[:count]
        for column, value in zip(collected, made[count:], strict=True):
            column.append(value)
    for column, back in zip(collected, attributes.get("scan_output_directions", [0] * outputs), strict=True):
        column[:] = column[::-1] if back else column
    out = _axes(attributes.get("scan_output_axes", [0] * outputs), [column[0].rank + 1 for column in collected])
    return [*carried, *(_stacked(state, column, axis) for column, axis in zip(collected, out, strict=True))]


CONTROL: dict[str, Control] = {"If": choose, "Loop": repeat, "Scan": along}


def _axes(given: Sequence[int], ranks: Sequence[int]) -> list[int]:
    if len(given) != len(ranks) or any(not -r <= a < r for a, r in zip(given, ranks, strict=True)):
        raise Refused(f"it goes along the axes {list(given)} of tensors of {list(ranks)} axes")
    return [a % r for a, r in zip(given, ranks, strict=True)]


def _part(state: Import, v: Value, axis: int, k: int) -> Value:
    return state.text.emit(f"{{0}}[{', '.join([*[':'] * axis, str(k)])}]", v, stem="part")


def _inner(state: Import, graph: Any, values: Mapping[str, Value], outer: Mapping[str, Any], depth: int) -> list[Value]:
    """The results of a graph in a graph, which sees the values around it."""
    seen = dict(values)
    for t in graph.initializer:
        seen[t.name] = known(tensor(state.proto, t), initial_dtype(t.data_type), t.name)
    state.run(graph.node, seen, outer, depth + 1)
    lacking = [o.name for o in graph.output if o.name not in seen]
    if lacking:
        raise Refused(f"nothing makes the `{lacking[0]}` of its graph")
    return [seen[o.name] for o in graph.output]


def _has(node: Any, k: int) -> bool:
    return k < len(node.input) and bool(node.input[k])


def _read(node: Any, k: int, values: Mapping[str, Value]) -> Value:
    if not _has(node, k):
        raise Refused(f"its input {k} is missing")
    return values[node.input[k]]


def _single(value: Value, what: str) -> int:
    if value.known is None or value.known.size != 1 or isinstance(value.known.reshape(-1)[0], Size):
        raise Refused(f"{what} must be known, not computed")
    return int(value.known.reshape(-1)[0])


def _stacked(state: Import, column: list[Value], axis: int = 0) -> Value:
    gaps = ", ".join(f"{{{k}}}" for k in range(len(column)))
    return state.text.emit(f"stack([{gaps}], axis = {axis})", *column)
