"""What only moves elements: shapes, slices, joins, repetitions, margins."""

from __future__ import annotations

from ....compiler.types.sizes import Dim, product
from ...onnx.importing.refusals import Refused
from ...onnx.importing.values import Value, known, sizes
from ..call import Call, operator


@operator("sym_size")
def size(n: Call) -> Dim:
    return n.x.shape[n.axis("dim")]


@operator("view", "reshape", "_unsafe_view", "view_as")
def reshape(n: Call) -> Value:
    wanted = list(n.arg("size") or n.arg("shape") or ())
    if n.x.rank > 1 and wanted == [n.x.shape[0], -1]:
        return n.emit("{0} |> flatten", n.x)
    if wanted.count(-1) == 1:
        rest = product([d for d in wanted if d != -1])
        whole = product(n.x.shape)
        if isinstance(rest, int) and isinstance(whole, int) and rest:
            wanted[wanted.index(-1)] = whole // rest
    return n.reshaped(n.x, wanted)


@operator("flatten")
def flatten(n: Call) -> Value:
    first, last = (n.checked_axis(n.whole(k), n.x.rank) for k in ("start_dim", "end_dim"))
    if first == 1 and last == n.x.rank - 1:
        return n.x if last == 1 else n.emit("{0} |> flatten", n.x)
    shape = n.x.shape
    return n.reshaped(n.x, [*shape[:first], product(shape[first : last + 1]), *shape[last + 1 :]])


@operator("unflatten")
def unflatten(n: Call) -> Value:
    axis = n.axis("dim")
    return n.reshaped(n.x, [*n.x.shape[:axis], *n.arg("sizes"), *n.x.shape[axis + 1 :]])


@operator("transpose", "permute", "t", "numpy_T")
def transpose(n: Call) -> Value:
    order = list(range(n.x.rank))
    if n.op == "permute":
        order = n.axes("dims", n.x.rank)
    elif n.op == "transpose":
        a, b = n.axis("dim0"), n.axis("dim1")
        order[a], order[b] = b, a
    else:
        order.reverse()
    return n.transposed(n.x, order)


@operator("unsqueeze")
def unsqueeze(n: Call) -> Value:
    axis = n.checked_axis(n.whole("dim"), n.x.rank + 1)
    made: Value = n.as_onnx("Unsqueeze", n.x, axes=[axis])
    return made


@operator("squeeze")
def squeeze(n: Call) -> Value:
    axes = [a for a in n.axes("dim", n.x.rank) if n.x.shape[a] == 1]
    made: Value = n.as_onnx("Squeeze", n.x, axes=axes) if axes else n.x
    return made


@operator("expand", "expand_as")
def expand(n: Call) -> Value:
    wanted = n.arg("size") if n.op == "expand" else n.tensor("other").shape
    front = len(wanted) - n.x.rank
    shape: list[Dim] = [n.x.shape[k - front] if d == -1 else d for k, d in enumerate(wanted)]
    made: Value = n.as_onnx("Expand", n.x, known(sizes(shape), "i64"))
    return made


@operator("select")
def select(n: Call) -> Value:
    axis, index = n.axis("dim"), n.arg("index")
    parts = n.views.stacked.get(n.x.name)
    if parts is not None and axis == 0 and isinstance(index, int):
        return parts[index]
    if isinstance(index, int) and index < 0:
        index = n.x.shape[axis] + index
    return n.emit(f"{{0}}[{', '.join([*[':'] * axis, str(index)])}]", n.x)


@operator("slice", "narrow")
def slices(n: Call) -> Value:
    axis, start, step = n.axis("dim"), n.arg("start") or 0, n.arg("step") or 1
    end = n.arg("end") if n.op == "slice" else start + n.arg("length")
    end = n.x.shape[axis] if end is None else end
    made: Value = n.as_onnx("Slice", n.x, starts=[start], ends=[end], axes=[axis], steps=[step])
    return made


@operator("cat", "concat", "concatenate")
def cat(n: Call) -> Value:
    tensors: list[Value] = n.arg("tensors")
    made: Value = n.as_onnx("Concat", *tensors, axis=n.checked_axis(n.whole("dim"), tensors[0].rank))
    return made


@operator("stack")
def stack(n: Call) -> Value:
    tensors: list[Value] = n.arg("tensors")
    axis = n.checked_axis(n.whole("dim"), tensors[0].rank + 1)
    return n.emit(f"stack([{', '.join(f'{{{k}}}' for k in range(len(tensors)))}], axis = {axis})", *tensors)


@operator("chunk", "split", "split_with_sizes")
def split(n: Call) -> list[Value]:
    axis = n.axis("dim")
    total = n.x.shape[axis]
    if not isinstance(total, int):
        raise Refused(f"an axis whose size is not known, {total}, cannot be split")
    given = n.arg("split_sizes") or n.arg("split_size")
    if n.op == "chunk":
        given = -(-total // n.whole("chunks"))
    parts = list(given) if isinstance(given, list) else [min(given, total - k) for k in range(0, total, given)]
    if len(set(parts)) == 1 and len(parts) > 1:
        more = "" if axis == 0 else f", axis = {axis}"
        return list(n.text.emit_results(f"split({{0}}, {len(parts)}{more})", n.x, count=len(parts), stem=n.stem))
    made: list[Value] = n.as_onnx("Split", n.x, results=len(parts), split=parts, axis=axis)
    return made


@operator("unbind")
def unbind(n: Call) -> list[Value]:
    axis = n.axis("dim")
    count = n.x.shape[axis]
    if not isinstance(count, int):
        raise Refused(f"an axis whose size is not known, {count}, cannot be taken apart")
    cut = ", ".join([":"] * axis)
    return [n.emit(f"{{0}}[{cut}{', ' if cut else ''}{k}]", n.x) for k in range(count)]


@operator("pad", "constant_pad_nd")
def pad(n: Call) -> Value:
    """PyTorch names the last axis first."""
    given = n.arg("pad")
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}.get(
        n.arg("mode") or "constant", ""
    )
    count = len(given) // 2
    front = [0] * (n.x.rank - count)
    before, after = [*front, *given[0::2][::-1]], [*front, *given[1::2][::-1]]
    made: Value = n.as_onnx("Pad", n.x, pads=[*before, *after], mode=mode, value=n.arg("value") or 0)
    return made


@operator("tril", "triu")
def triangle(n: Call) -> Value:
    diagonal = known(n.arg("diagonal") or 0, "i64")
    made: Value = n.as_onnx("Trilu", n.text.placed(n.x), diagonal, upper=int(n.op == "triu"))
    return made


@operator("repeat")
def repeat(n: Call) -> Value:
    times = n.arg("repeats")
    x = n.widened(n.x, len(times)) if len(times) > n.x.rank else n.x
    made: Value = n.as_onnx("Tile", x, known(sizes(times), "i64"))
    return made


@operator("flip")
def flip(n: Call) -> Value:
    return n.emit(f"flip({{0}}, {n.axes('dims', n.x.rank)})", n.x)


@operator("pixel_shuffle")
def pixel_shuffle(n: Call) -> Value:
    return n.emit(f"{{0}} |> pixel_shuffle({n.whole('upscale_factor')})", n.x)
