"""Recurrent networks: layers of the library, one for each direction of each layer, with PyTorch's two biases."""

from __future__ import annotations

from ...onnx.importing.refusals import Refused
from ...onnx.importing.values import Value
from ..call import Call, is_learned, operator

_LAYERS = {"lstm": "Lstm", "gru": "Gru", "rnn_tanh": "Rnn", "rnn_relu": "Rnn"}


@operator(*_LAYERS)
def recurrent(n: Call) -> list[Value]:
    """The states of all steps, and the last ones of each direction of each layer."""
    if "batch_sizes" in n.attributes:
        raise Refused("packed sequences are not supported: pad them")
    x = n.tensor("input")
    if x.rank != 3:
        raise Refused("an input without an axis for the batch is not supported")
    first = n.arg("hx")
    if any(v.name not in n.zeros for v in (first if isinstance(first, list) else [first])):
        raise Refused("it must begin with states of 0, as it does where none are given")
    directions = 2 if n.arg("bidirectional") else 1
    each = 4 if n.arg("has_biases") else 2
    params: list[Value] = n.arg("params")
    cells = [params[k : k + each] for k in range(0, len(params), each)]
    if len(cells) != n.whole("num_layers") * directions or not is_learned(*params):
        raise Refused("projections, and parameters that are read elsewhere, too, are not supported")
    y = x if n.arg("batch_first") else n.transposed(x, [1, 0, 2])
    last: list[Value] = []
    for layer in range(n.whole("num_layers")):
        ends = [_cell(n, y, layer, d == 1, cells[layer * directions + d]) for d in range(directions)]
        last += [end for _, end in ends]
        y = ends[0][0] if directions == 1 else n.emit("concat([{0}, {1}], axis = 2)", *(e[0] for e in ends))
        if n.arg("dropout") and n.arg("train") and layer + 1 < n.whole("num_layers"):
            y = n.emit(f"{{0}} |> dropout(p = {n.arg('dropout')})", y)
    states = n.emit(f"stack([{', '.join(f'{{{k}}}' for k in range(len(last)))}], axis = 0)", *last)
    n.views.stacked[states.name] = last
    results = [y if n.arg("batch_first") else n.transposed(y, [1, 0, 2]), states]
    return results


def _cell(n: Call, x: Value, layer: int, backwards: bool, params: list[Value]) -> tuple[Value, Value]:
    """One direction of one layer: the states of all steps, in the order of the sequence, and the last one."""
    w, u, *biases = params
    size = u.shape[1]
    more = "" if n.op != "rnn_relu" else ", activation = relu"
    numbered = f"_{layer + 1}" if n.whole("num_layers") > 1 else ""
    label = f"{n.path or n.op}{numbered}{'_back' if backwards else ''}"
    arrays = dict(zip("WUbe", (v.known for v in (w, u, *biases)), strict=False))
    call = f"{_LAYERS[n.op]}({size}{more}, biases = {len(biases)})"
    y = n.text.layer(
        n.emit("flip({0}, 1)", x) if backwards else x, label, call, {k: a for k, a in arrays.items() if a is not None}
    )
    end = n.emit("{0}[:, -1]", y)
    return n.emit("flip({0}, 1)", y) if backwards else y, end
