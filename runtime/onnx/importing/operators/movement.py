"""What only moves elements: shapes, slices, joins, repetitions, margins."""

from __future__ import annotations

from typing import Any

import numpy as np

from .....compiler.types.sizes import Dim, Size, product
from .....compiler.types.tensors import TensorType
from ..node import Node, operator, shown
from ..refusals import Refused
from ..types import dtype_of, dtype_of_array, unsupported
from ..values import Value, known, number, scalar, sizes


@operator("Constant")
def constant(n: Node) -> Value:
    for name, dtype in (("value_int", "i64"), ("value_float", "f32"), ("value_ints", "i64"), ("value_floats", "f32")):
        if name in n.attributes:
            return known(np.asarray(n.attributes[name]), dtype)
    if "value" not in n.attributes:
        raise unsupported("texts or sparse tensors")
    array = n.attributes["value"]
    return known(array, dtype_of_array(array), n.outputs[0] if array.size > 32 else "")


@operator("Shape")
def shape(n: Node) -> Value:
    return known(sizes(n.x.shape[n.attribute("start", 0) : n.attribute("end", None)]), "i64")


@operator("Size")
def size(n: Node) -> Value:
    return known(sizes([product(n.x.shape)]).reshape(()), "i64")


@operator("Reshape")
def reshape(n: Node) -> Value:
    wanted = n.given("shape", 1) or []
    shape: list[Dim] = [n.x.shape[k] if d == 0 and not n.attribute("allowzero", 0) else d for k, d in enumerate(wanted)]
    if n.x.rank > 1 and shape in ([n.x.shape[0], -1], [-1, product(n.x.shape[1:])]):
        return n.emit("{0} |> flatten", n.x)
    return n.emit(f"reshape({{0}}, {shown(shape)})", n.x)


@operator("Flatten")
def flatten(n: Node) -> Value:
    axis = n.attribute("axis", 1)
    axis = axis if axis >= 0 else axis + n.x.rank
    if axis == 1:
        return n.x if n.x.rank == 2 and n.x.name else n.emit("{0} |> flatten", n.x)
    return n.reshaped(n.x, (product(n.x.shape[:axis]), product(n.x.shape[axis:])))


@operator("Squeeze")
def squeeze(n: Node) -> Value:
    axes = n.given("axes", 1)
    named = [n.checked_axis(int(str(a)), n.x.rank) for a in axes] if axes is not None else None
    if named is None:
        named = [k for k, d in enumerate(n.x.shape) if d == 1]
    if not named:
        return n.x
    return n.emit(f"squeeze({{0}}, {named[0] if len(named) == 1 else named})", n.x)


@operator("Unsqueeze")
def unsqueeze(n: Node) -> Value:
    axes = n.given("axes", 1) or []
    rank = n.x.rank + len(axes)
    named = sorted(n.checked_axis(int(str(a)), rank) for a in axes)
    if len(named) == 1:
        return n.emit(f"expand({{0}}, {named[0]})", n.x)
    rest = iter(n.x.shape)
    return n.reshaped(n.x, [1 if k in named else next(rest) for k in range(rank)])


@operator("Transpose")
def transpose(n: Node) -> Value:
    order = list(n.attribute("perm", list(reversed(range(n.x.rank)))))
    return n.transposed(n.x, order)


@operator("Concat")
def concat(n: Node) -> Value:
    axis = n.axis(default=1 if n.version < 4 else None)
    values = [v for v in n.inputs if v is not None]
    joined = ", ".join(f"{{{k}}}" for k in range(len(values)))
    return n.emit(f"concat([{joined}], axis = {axis})", *values)


@operator("Split")
def split(n: Node) -> Any:
    axis, count = n.axis(default=0), len(n.outputs)
    parts = n.given("split", 1)
    total = n.x.shape[axis]
    if parts is None:
        count = n.attribute("num_outputs", count)
        if not isinstance(total, int):
            if count > 1 and (total % count) != 0:
                raise Refused(f"whether {count} divides {total} is not known")
            parts = [total // count] * count
        else:
            step = -(-total // count)
            parts = [min(step, max(total - k * step, 0)) for k in range(count)]
    whole = sum(parts[1:], parts[0]) if parts else 0
    if len(parts) != len(n.outputs) or (isinstance(whole, int) and isinstance(total, int) and whole != total):
        raise Refused(f"{total} elements are not split into {len(n.outputs)} parts of {shown(parts)}")
    cut = ", ".join([*[":"] * axis, "{}"])
    made: list[Value] = []
    start: Dim = 0
    for p in parts:
        made.append(n.emit("{0}[" + cut.format(f"{start}:{start + p}") + "]", n.x))
        start = start + p
    return made


@operator("Slice")
def slices(n: Node) -> Value:
    starts, ends = n.given("starts", 1) or [], n.given("ends", 2) or []
    axes = [n.checked_axis(int(str(a)), n.x.rank) for a in (n.given("axes", 3) or range(len(starts)))]
    steps = n.given("steps", 4) or [1] * len(starts)
    cut: dict[int, str] = {}
    turned: list[int] = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = n.x.shape[axis]
        if not isinstance(step, int) or step == 0:
            raise Refused("a step of a slice must be a number other than 0")
        if step > 0:
            first, last = _bound(start, size, 0), _bound(end, size, 0)
            if isinstance(first, int) and isinstance(last, int):
                last = max(first, last)
            text = f"{'' if first == 0 else first}:{'' if last == size else last}"
        else:  # backwards from start down to above end: forwards through what was turned
            if not isinstance(size, int) or isinstance(start, Size) or isinstance(end, Size):
                if not (start in (-1,) or (isinstance(start, int) and start >= 2**31 - 1)) or not (
                    isinstance(end, int) and end <= -(2**31) + 1
                ):
                    raise Refused("a slice backwards needs an axis of a size that is known")
                text = ":"
            else:
                first = size - 1 - _clamped(start, size, -1, size - 1)
                last = size - 1 - _clamped(end, size, -1, size - 1)
                text = ":" if first == 0 and last == size else f"{first}:{max(first, last)}"
            turned.append(axis)
        cut[axis] = text + (f":{abs(step)}" if abs(step) != 1 else "")
    x = n.emit(f"flip({{0}}, {turned})", n.x) if turned else n.x
    if all(c == ":" for c in cut.values()):
        return x
    listed = ", ".join(cut.get(k, ":") for k in range(max(cut) + 1))
    return n.emit(f"{{0}}[{listed}]", x)


def _clamped(value: Dim, size: int, low: int, high: int) -> int:
    assert isinstance(value, int)
    return min(max(value + size if value < 0 else value, low), high)


def _bound(value: Dim, size: Dim, low: int) -> Dim:
    """A start or an end within an axis, counted from its front."""
    if isinstance(size, int) and isinstance(value, int):
        return _clamped(value, size, low, size)
    if isinstance(value, int):
        if value >= 2**31 - 1:
            return size
        return size + value if value < 0 else value
    return value


@operator("Expand")
def expand(n: Node) -> Value:
    shape = n.numbers(1, "the shape")
    rank = max(n.x.rank, len(shape))
    own = [*[1] * (rank - n.x.rank), *n.x.shape]
    wanted: list[Dim] = [*[1] * (rank - len(shape)), *shape]
    full = [o if w == 1 else w for o, w in zip(own, wanted, strict=True)]
    if tuple(full) == n.x.shape:
        return n.x
    if n.x.is_single and n.x.known is not None:
        return n.emit(f"broadcast({scalar(n.x.known.reshape(-1)[0], n.x.dtype)}, {shown(full)})")
    x = n.x if n.x.rank in (0, rank) or tuple(full[rank - n.x.rank :]) == n.x.shape else n.widened(n.x, rank)
    return n.emit(f"broadcast({{0}}, {shown(full)})", x)


@operator("Tile")
def tile(n: Node) -> Value:
    repeats = n.numbers(1, "the repeats")
    if n.version < 6:
        axis = n.integers(2, "the axis")[0]
        repeats = [repeats[0] if k == axis else 1 for k in range(n.x.rank)]
    x = n.x
    for axis, r in enumerate(repeats):
        if r == 1:
            continue
        shape = list(x.shape)
        wide = n.emit(f"broadcast(expand({{0}}, {axis}), {shown([*shape[:axis], r, *shape[axis:]])})", x)
        shape[axis] = shape[axis] * r
        x = n.reshaped(wide, shape)
    return x


@operator("ConstantOfShape")
def constant_of_shape(n: Node) -> Value:
    value = n.attribute("value", np.zeros(1, np.float32))
    dtype = dtype_of_array(value)
    shape = n.numbers(0, "the shape")
    return n.emit(f"broadcast({scalar(value.reshape(-1)[0], dtype)}, {shown(shape)})")


@operator("Range")
def range_of(n: Node) -> Value:
    start, limit, delta = (n.numbers(k, "a bound") for k in range(3))
    if delta[0] != 1:
        raise Refused("a range to a size goes in steps of 1")
    count = limit[0] - start[0]
    y = n.emit(f"cast(iota({count}), {n.x.dtype})")
    return y if start[0] == 0 else n.emit(f"{{0}} + {start[0]}", y)


@operator("EyeLike")
def eye_like(n: Node) -> Value:
    dtype = dtype_of(n.attributes["dtype"]) if "dtype" in n.attributes else n.x.dtype
    rows, columns = n.x.shape
    k = n.attribute("k", 0)
    return n.emit(f"cast(expand(iota({rows}), 1) + {k} == expand(iota({columns}), 0), {dtype})")


@operator("Trilu")
def triangle(n: Node) -> Value:
    rows, columns = n.x.shape[-2:]
    k = n.numbers(1, "the diagonal")[0] if n.has(1) else 0
    sign = ">=" if n.attribute("upper", 1) else "<="
    seen = f"expand(iota({columns}), 0) {sign} expand(iota({rows}), 1)" + (f" + {k}" if k != 0 else "")
    zero = "false" if n.x.dtype == "bool" else number(0, n.x.dtype)
    if n.x.rank == 2:
        return n.emit(f"where({seen}, {{0}}, {zero})", n.x)
    (mask,) = n.meet(n.emit(seen), Value(TensorType("f32", (1,) * n.x.rank), "none"))[:1]
    return n.emit(f"where({{1}}, {{0}}, {zero})", n.x, mask)


@operator("Pad")
def pad(n: Node) -> Value:
    given = n.attributes.get("paddings", n.attributes.get("pads"))
    widths: list[Dim] = list(given) if given is not None else n.numbers(1, "the widths")
    if "value" in n.attributes:
        value: Any = n.attributes["value"]
    else:
        value = n.known(2, "the value that pads").reshape(-1)[0] if n.has(2) else 0
    rank = n.x.rank
    axes = [n.checked_axis(a, rank) for a in n.integers(3, "the axes")] if n.has(3) else list(range(rank))
    half = len(widths) // 2
    sides: dict[int, list[Dim]] = {a: [widths[k], widths[k + half]] for k, a in enumerate(axes)}
    mode = n.attribute("mode", "constant")
    x = n.x
    cuts = {a: [-w if isinstance(w, int) and w < 0 else 0 for w in s] for a, s in sides.items()}
    listed = [[0 if isinstance(w, int) and w < 0 else w for w in sides.get(a, [0, 0])] for a in range(rank)]
    pairs = f"[{', '.join(shown(p) for p in listed)}]"
    if mode != "constant":
        by = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}.get(mode)
        if by is None:
            raise Refused(f"there is no way to pad called `{mode}`")
        x = n.emit(f'extend({{0}}, {pairs}, by = "{by}")', x)
    elif any(w != 0 for p in listed for w in p):
        if n.x.dtype == "bool":
            x = n.emit(f"cast(pad(cast({{0}}, i32), {pairs}, value = {int(value)}), bool)", x)
        else:
            x = n.emit(f"pad({{0}}, {pairs}" + (f", value = {number(value, n.x.dtype)})" if value != 0 else ")"), x)
    if any(c for cut in cuts.values() for c in cut):
        parts = []
        for a in range(rank):
            first, last = cuts.get(a, [0, 0])
            parts.append(f"{first or ''}:{x.shape[a] - last if last else ''}")
        x = n.emit(f"{{0}}[{', '.join(parts)}]", x)
    return x


@operator("DepthToSpace")
def depth_to_space(n: Node) -> Value:
    """`DCR` takes the block from the first part of the channels, `CRD` from the last, as `pixel_shuffle` does."""
    r = int(n.needed("blocksize"))
    b, c, h, w = n.x.shape
    if n.attribute("mode", "DCR") == "CRD" and n.x.dtype == "f32":
        return n.emit(f"{{0}} |> pixel_shuffle({r})", n.x)
    order, apart = [0, 3, 4, 1, 5, 2], [b, r, r, c // (r * r), h, w]
    if n.attribute("mode", "DCR") == "CRD":
        order, apart = [0, 1, 4, 2, 5, 3], [b, c // (r * r), r, r, h, w]
    y = n.emit(f"transpose(reshape({{0}}, {shown(apart)}), {order})", n.x)
    return n.reshaped(y, [b, c // (r * r), h * r, w * r])


@operator("SpaceToDepth")
def space_to_depth(n: Node) -> Value:
    r = int(n.needed("blocksize"))
    b, c, h, w = n.x.shape
    apart = [b, c, h // r, r, w // r, r]
    order = [0, 3, 5, 1, 2, 4] if n.attribute("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    y = n.emit(f"transpose(reshape({{0}}, {shown(apart)}), {order})", n.x)
    return n.reshaped(y, [b, c * r * r, h // r, w // r])
