"""Recurrent networks: layers of the library where they are what it has, and otherwise a scan.

Sequences are [T, B, D]; gates stand in ONNX's order, i o f c of an LSTM and z r h of a GRU, of which the library has
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ....call.column import Array
from ..node import Node, operator, shown
from ..refusals import Refused
from ..values import Value, known, number
from .products import is_weight

_GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
_DEFAULT = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}
_ORDER = {"RNN": [0], "LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}  # the library's gates among ONNX's
_FUNCTIONS = {
    "Relu": "relu({})", "Tanh": "tanh({})", "Sigmoid": "sigmoid({})", "Softsign": "softsign({})",
    "Softplus": "softplus({})", "Affine": "{a} * {} + {b}", "LeakyRelu": "leaky_relu({}, {a})",
    "ThresholdedRelu": "where({} >= {a}, {}, 0.0)", "ScaledTanh": "{a} * tanh({b} * {})",
    "HardSigmoid": "clip({a} * {} + {b}, 0, 1)", "Elu": "elu({}, {a})",
}  # fmt: skip
_ALPHA = {"LeakyRelu": 0.01, "HardSigmoid": 0.2, "Elu": 1.0}
_BETA = {"HardSigmoid": 0.5}


@dataclass(frozen=True, slots=True)
class Cell:
    """One direction of a recurrent network."""

    n: Node
    size: int
    w: Value
    r: Value
    bias: Value | None
    first: Value | None
    cell: Value | None
    peephole: Value | None
    functions: tuple[str, ...]  # templates of its activations
    backwards: bool
    lengths: Value | None


@operator("RNN", "LSTM", "GRU")
def recurrent(n: Node) -> list[Value]:
    directions = 2 if n.attribute("direction", "forward") == "bidirectional" else 1
    layout = n.attribute("layout", 0)
    x = n.transposed(n.x, [1, 0, 2]) if layout else n.x
    lengths = n.input(4) if n.has(4) else None
    if lengths is not None and lengths.known is not None and (lengths.known == x.shape[0]).all():
        lengths = None
    ends = [_run(_cell(n, x, k, directions, lengths), x) for k in range(directions)]
    parts = [n.emit("expand({0}, 1)", y) for y, *_ in ends]
    y = parts[0] if directions == 1 else n.emit("concat([{0}, {1}], axis = 1)", *parts)
    results = [n.transposed(y, [2, 0, 1, 3]) if layout else y]
    for state in range(1, 3 if n.op == "LSTM" else 2):
        if state < len(n.outputs) and n.outputs[state]:
            last = [n.emit("expand({0}, 0)", v) for e in ends if (v := e[state]) is not None]
            z = last[0] if directions == 1 else n.emit("concat([{0}, {1}], axis = 0)", *last)
            results.append(n.transposed(z, [1, 0, 2]) if layout else z)
        else:
            results.append(results[0])  # nobody reads it
    return results


def _cell(n: Node, x: Value, k: int, directions: int, lengths: Value | None) -> Cell:
    size = n.attribute("hidden_size", 0) or n.input(2).shape[2]
    if not isinstance(size, int):
        raise Refused("the size of its state must be known")
    states = [5, 6] if n.op == "LSTM" else [5]
    first = [_of_direction(n, s, k, batch_first=bool(n.attribute("layout", 0))) if n.has(s) else None for s in states]
    backwards = n.attribute("direction", "forward") == "reverse" or k == 1
    return Cell(
        n, size, _of_direction(n, 1, k), _of_direction(n, 2, k), _of_direction(n, 3, k) if n.has(3) else None,
        first[0], first[1] if len(first) > 1 else None, _of_direction(n, 7, k) if n.has(7) else None,
        _functions(n, k), backwards, lengths,
    )  # fmt: skip


def _of_direction(n: Node, at: int, k: int, batch_first: bool = False) -> Value:
    """The part of an input for one direction."""
    v = n.input(at)
    if v.known is not None and not v.name:
        part = v.known[:, k] if batch_first else v.known[k]
        return known(np.ascontiguousarray(part), v.dtype, v.origin and f"{v.origin}_{k}" if k else v.origin)
    return replace(n.emit(f"{{0}}[:, {k}]" if batch_first else f"{{0}}[{k}]", v), fill=v.fill)


def _functions(n: Node, k: int) -> tuple[str, ...]:
    each = len(_DEFAULT[n.op])
    names = n.attribute("activations", _DEFAULT[n.op] * (k + 1))[k * each : (k + 1) * each]
    alphas: list[float] = list(n.attribute("activation_alpha", []))
    betas: list[float] = list(n.attribute("activation_beta", []))
    made = []
    for name in names:
        if name not in _FUNCTIONS:
            raise Refused(f"there is no activation called `{name}`")
        template = _FUNCTIONS[name]
        alpha = (alphas.pop(0) if alphas else _ALPHA.get(name, 1.0)) if "{a}" in template else 0.0
        beta = (betas.pop(0) if betas else _BETA.get(name, 0.0)) if "{b}" in template else 0.0
        made.append(template.replace("{a}", number(alpha, "f32")).replace("{b}", number(beta, "f32")))
    return tuple(made)


def _run(c: Cell, x: Value) -> tuple[Value, Value, Value | None]:
    """The states of all steps, [T, B, h], and the last ones."""
    return _layer(c, x) if _is_layer(c) else _scan(c, x)


def _is_zero(v: Value | None) -> bool:
    return v is None or v.everywhere == 0


def _is_layer(c: Cell) -> bool:
    """Whether the library has this cell."""
    n = c.n
    plain = all(f == _FUNCTIONS[d] for f, d in zip(c.functions, _DEFAULT[n.op], strict=True))
    cell_read = n.op == "LSTM" and len(n.outputs) > 2 and bool(n.outputs[2])
    return (
        plain and is_weight(c.w) and is_weight(c.r) and (c.bias is None or is_weight(c.bias))
        and _is_zero(c.first) and _is_zero(c.cell) and _is_zero(c.peephole) and c.lengths is None and not cell_read
        and "clip" not in n.attributes and not n.attribute("input_forget", 0)
        and (n.op != "GRU" or bool(n.attribute("linear_before_reset", 0)))
    )  # fmt: skip


def _layer(c: Cell, x: Value) -> tuple[Value, Value, Value | None]:
    n, order, gates = c.n, _ORDER[c.n.op], _GATES[c.n.op]
    assert c.w.known is not None and c.r.known is not None
    whole = (
        c.bias.known if c.bias is not None and c.bias.known is not None else np.zeros(2 * gates * c.size, np.float32)
    )
    of_input, of_state = whole[: gates * c.size], whole[gates * c.size :]
    arrays = {"W": _ordered(c.w.known, order, c.size), "U": _ordered(c.r.known, order, c.size)}
    if n.op == "GRU":
        held = of_state.copy()
        held[2 * c.size :] = 0
        arrays |= {"b": _ordered(of_input + held, order, c.size), "e": of_state[2 * c.size :].copy()}
    else:
        arrays["b"] = _ordered(of_input + of_state, order, c.size)
    sequence = n.emit("flip({0}, 0)", x) if c.backwards else x
    by_example = n.transposed(sequence, [1, 0, 2])
    name = {"RNN": "Rnn", "LSTM": "Lstm", "GRU": "Gru"}[n.op]
    y = n.text.layer(by_example, f"{n.label(c.w)}{'_backwards' if c.backwards else ''}", f"{name}({c.size})", arrays)
    last = n.emit("{0}[:, -1]", y)
    y = n.transposed(y, [1, 0, 2])
    return n.emit("flip({0}, 0)", y) if c.backwards else y, last, None


def _ordered(array: Array, order: Sequence[int], size: int) -> Array:
    return np.concatenate([array[g * size : (g + 1) * size] for g in order])


def _scan(c: Cell, x: Value) -> tuple[Value, Value, Value | None]:
    n, h, gates = c.n, c.size, _GATES[c.n.op]
    steps, batch = x.shape[0], x.shape[1]
    if c.backwards and c.lengths is not None:
        raise Refused("sequences of different lengths cannot be read backwards")
    if c.backwards:
        x = n.emit("flip({0}, 0)", x)
    zero = n.text.emit(f"broadcast(cast(0, {x.dtype}), {shown([batch, h])})", stem="zero")
    first = c.first if c.first is not None else zero
    z = n.emit("{0} @ {1}.T", x, n.text.placed(c.w))
    operands: list[Value] = [z, n.text.placed(c.r), first]
    inside = None
    if c.bias is not None:
        bias = n.text.placed(c.bias)
        operands[0] = z = n.emit(f"{{0}} + {{1}}[:{gates * h}]", z, bias)
        inside = n.emit(f"{{0}}[{gates * h}:]", bias)
    body, names, inner = _BODIES[n.op](c, operands, inside)
    if n.op == "LSTM":
        operands.append(c.cell if c.cell is not None else zero)
    start = ["{r1} = {2}"] + ([f"{{r2}} = {{{len(operands) - 1}}}"] if n.op == "LSTM" else [])
    kept = "{r1}[b, k]"
    if c.lengths is not None:
        operands.append(n.cast(c.lengths, "i32"))
        live = f"expand({{{len(operands) - 1}}}, 1) > t"
        body += [f"{{live}} = {live}", "{r1} = where({live}, {new}, {r1})"]
        body += ["{r2} = where({live}, {more}, {r2})"] if n.op == "LSTM" else []
        body.append("{kept} = where({live}, {new}, 0)")
        kept = "{kept}[b, k]"
    else:
        body += ["{r1} = {new}"] + (["{r2} = {more}"] if n.op == "LSTM" else [])
    lines = [*start, f"scan t in 0..{steps} {{", *body, f"{{r0}}[t, b, k] = {kept}", "}"]
    made = n.emit_whole("\n".join(lines), *operands, names=names, inner=[*inner, "live", "new", "more", "kept"])
    y = n.emit("flip({0}, 0)", made[0]) if c.backwards else made[0]
    return y, made[1], made[2] if names > 2 else None


def _active(c: Cell, which: int, text: str) -> str:
    if "clip" in c.n.attributes:
        bound = number(c.n.attributes["clip"], "f32")
        text = f"clip({text}, -{bound}, {bound})"
    return c.functions[which].replace("{}", f"({text})")


def _rnn(c: Cell, operands: list[Value], inside: Value | None) -> tuple[list[str], int, list[str]]:
    return ["{new} = " + _active(c, 0, f"{{0}}[t] + {{r1}} @ {{1}}.T{_more(operands, inside)}")], 2, []


def _more(operands: list[Value], inside: Value | None) -> str:
    if inside is None:
        return ""
    operands.append(inside)
    return f" + {{{len(operands) - 1}}}"


def _lstm(c: Cell, operands: list[Value], inside: Value | None) -> tuple[list[str], int, list[str]]:
    h = c.size
    body = [f"{{a}} = {{0}}[t] + {{r1}} @ {{1}}.T{_more(operands, inside)}"]
    peep = ["", "", ""]
    if c.peephole is not None:
        operands.append(c.n.text.placed(c.peephole))
        at = len(operands) - 1
        peep = [f" + {{{at}}}[{k * h}:{(k + 1) * h}] * " for k in range(3)]
    gate = [f"{{a}}[:, {k * h}:{(k + 1) * h}]" for k in range(4)]

    def peeped(k: int, cell: str) -> str:
        return gate[k] + (peep[k] + cell if peep[k] else "")

    body += [
        "{i} = " + _active(c, 0, peeped(0, "{r2}")),
        "{f} = " + ("1 - {i}" if c.n.attribute("input_forget", 0) else _active(c, 0, peeped(2, "{r2}"))),
        "{more} = {f} * {r2} + {i} * " + _active(c, 1, gate[3]),
        "{o} = " + _active(c, 0, peeped(1, "{more}")),
        "{new} = {o} * " + c.functions[2].replace("{}", "{more}"),
    ]
    return body, 3, ["a", "i", "f", "o"]


def _gru(c: Cell, operands: list[Value], inside: Value | None) -> tuple[list[str], int, list[str]]:
    h = c.size
    bias = ["", "", ""]
    if inside is not None:
        operands.append(inside)
        bias = [f" + {{{len(operands) - 1}}}[{k * h}:{(k + 1) * h}]" for k in range(3)]
    rows = [f"{{1}}[{k * h}:{(k + 1) * h}]" for k in range(3)]
    read = [f"{{0}}[t, :, {k * h}:{(k + 1) * h}]" for k in range(3)]
    body = [
        "{u} = " + _active(c, 0, f"{read[0]} + {{r1}} @ {rows[0]}.T{bias[0]}"),
        "{r} = " + _active(c, 0, f"{read[1]} + {{r1}} @ {rows[1]}.T{bias[1]}"),
    ]
    if c.n.attribute("linear_before_reset", 0):
        body.append("{n} = " + _active(c, 1, f"{read[2]} + {{r}} * ({{r1}} @ {rows[2]}.T{bias[2]})"))
    else:
        body.append("{n} = " + _active(c, 1, f"{read[2]} + ({{r}} * {{r1}}) @ {rows[2]}.T{bias[2]}"))
    body.append("{new} = (1 - {u}) * {n} + {u} * {r1}")
    return body, 2, ["u", "r", "n"]


_BODIES = {"RNN": _rnn, "LSTM": _lstm, "GRU": _gru}
