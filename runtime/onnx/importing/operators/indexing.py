"""Elements picked by positions, put at positions, sorted and selected."""

from __future__ import annotations

from collections.abc import Sequence

from .....compiler.types.sizes import Dim, product
from ..node import Node, operator, shown
from ..refusals import Refused
from ..values import Value, factor, known, number
from .products import is_weight


def counted(n: Node, index: Value, size: Dim) -> Value:
    """Positions along an axis of this size, those below 0 from its end."""
    if index.known is not None and not index.is_symbolic and isinstance(size, int):
        a = index.known
        if a.size and (int(a.min()) < -size or int(a.max()) >= size):
            raise Refused(f"a position lies outside an axis of {size}")
        return known(a % size if size else a, index.dtype)
    return n.emit(f"where({{0}} < 0, {{0}} + {size}, {{0}})", index)


@operator("Gather")
def gather(n: Node) -> Value:
    x, index, axis = n.x, n.input(1), n.axis(default=0)
    if index.is_single and index.rank == 0 and index.known is not None:
        at = n.numbers(1, "the position")[0]
        size = x.shape[axis]
        if isinstance(at, int) and at < 0:
            at = size + at
        return n.emit(f"{{0}}[{', '.join([*[':'] * axis, str(at)])}]", x)
    if is_weight(x) and x.known is not None and x.rank == 2 and axis == 0 and index.known is None:
        i = n.cast(index, "i32")
        return n.text.layer(i, n.label(x), f"Embedding({x.shape[0]}, {x.shape[1]})", {"W": x.known})
    return n.emit(f"gather({{0}}, {{1}}{f', axis = {axis}' if axis else ''})", x, counted(n, index, x.shape[axis]))


def _strides(shape: Sequence[Dim]) -> list[Dim]:
    strides: list[Dim] = []
    for k in range(len(shape)):
        strides.append(product(shape[k + 1 :]))
    return strides


def _linear(n: Node, index: Value, axis: int, shape: Sequence[Dim]) -> Value:
    """For each element of `index`, row by row, its place in a tensor of `shape`: its own, but along `axis`."""
    strides = _strides(shape)
    index = counted(n, index, shape[axis])
    terms = [f"cast({{0}}, i64) * {factor(strides[axis])}" if strides[axis] != 1 else "cast({0}, i64)"]
    for k, d in enumerate(index.shape):
        if k != axis and d != 1:
            place = f"cast(iota({d}), i64)" + (f" * {factor(strides[k])}" if strides[k] != 1 else "")
            ones = shown([d if j == k else 1 for j in range(index.rank)])
            terms.append(f"reshape({place}, {ones})" if index.rank > 1 else place)
    return n.emit(f"reshape({' + '.join(terms)}, [-1])", index)


@operator("GatherElements")
def gather_elements(n: Node) -> Value:
    x, index, axis = n.x, n.input(1), n.axis(default=0)
    flat = _linear(n, index, axis, x.shape)
    y = n.emit("gather(reshape({0}, [-1]), {1})", x, flat)
    return n.reshaped(y, index.shape)


@operator("GatherND")
def gather_nd(n: Node) -> Value:
    x, index, batch = n.x, n.input(1), n.attribute("batch_dims", 0)
    flat, depth = _places(n, index, x.shape, batch)
    rest = x.shape[batch + depth :]
    rows = n.emit(f"reshape({{0}}, {shown([-1, *rest])})", x)
    y = n.emit("gather({0}, {1})", rows, flat)
    return n.reshaped(y, [*index.shape[:-1], *rest])


def _places(n: Node, index: Value, shape: Sequence[Dim], batch: int) -> tuple[Value, int]:
    """The rows that tuples of positions name, counted through the axes they name, and how many those are."""
    depth = index.shape[-1]
    if not isinstance(depth, int):
        raise Refused("how many positions name an element must be known")
    named = shape[batch : batch + depth]
    strides = _strides(shape[: batch + depth])
    terms = []
    for k, d in enumerate(named):
        column = n.emit(f"{{0}}[{', '.join([*[':'] * (index.rank - 1), str(k)])}]", index)
        at = n.emit("cast({0}, i64)", counted(n, column, d))
        terms.append(n.emit(f"{{0}} * {factor(strides[batch + k])}", at) if strides[batch + k] != 1 else at)
    total = terms[0]
    for t in terms[1:]:
        total = n.emit("{0} + {1}", total, t)
    for k in range(batch):
        ones = shown([index.shape[k] if j == k else 1 for j in range(index.rank - 1)])
        total = n.emit(f"{{0}} + reshape(cast(iota({index.shape[k]}), i64) * {factor(strides[k])}, {ones})", total)
    return n.emit("reshape({0}, [-1])", total), depth


def _combined(n: Node, x: Value, flat: Value, updates: Value, rows: Dim, how: str) -> Value:
    """x, [rows, ...], with updates put at rows, or combined with what is there."""
    if how in ("none", ""):
        hit = n.emit(f"scatter(broadcast(1, [size({{0}})]), {{0}}, {rows})", flat)
        put = _last(n, flat, updates, rows)
        ones = shown([rows, *[1] * (x.rank - 1)])
        seen = n.emit("{0} > 0", hit)
        return n.emit("where({0}, {1}, {2})", n.reshaped(seen, [rows, *[1] * (x.rank - 1)]) if ones else seen, put, x)
    if how == "add":
        return n.emit(f"{{0}} + scatter({{1}}, {{2}}, {rows})", x, updates, flat)
    if how in ("max", "min"):
        name = "maximum" if how == "max" else "minimum"
        put = n.emit(f'scatter({{0}}, {{1}}, {rows}, by = "{how}")', updates, flat)
        return n.emit(f"{name}({{0}}, {{1}})", x, put)
    if how == "mul":
        return n.emit(f'{{0}} * scatter({{1}}, {{2}}, {rows}, by = "mul")', x, updates, flat)
    raise Refused(f"there is no reduction called `{how}`")


def _last(n: Node, flat: Value, updates: Value, rows: Dim) -> Value:
    """Of updates at one row the last: the largest number of an update there says which it is."""
    which = n.emit(f'scatter(iota(size({{0}})), {{0}}, {rows}, by = "max")', flat)
    return n.emit("gather({0}, maximum({1}, 0))", updates, which)


@operator("ScatterElements", "Scatter")
def scatter_elements(n: Node) -> Value:
    x, index, updates, axis = n.x, n.input(1), n.input(2), n.axis(default=0)
    if not all(index.shape):
        return x
    flat = _linear(n, index, axis, x.shape)
    y = _combined(
        n, n.emit("reshape({0}, [-1])", x), flat, n.emit("reshape({0}, [-1])", updates), product(x.shape),
        n.attribute("reduction", "none"),
    )  # fmt: skip
    return n.reshaped(y, x.shape)


@operator("ScatterND")
def scatter_nd(n: Node) -> Value:
    x, index, updates = n.x, n.input(1), n.input(2)
    if not all(index.shape[:-1]):
        return x
    flat, depth = _places(n, index, x.shape, 0)
    rest = x.shape[depth:]
    rows = product(x.shape[:depth])
    y = _combined(
        n, n.emit(f"reshape({{0}}, {shown([rows, *rest])})", x), flat,
        n.emit(f"reshape({{0}}, {shown([-1, *rest])})", updates), rows, n.attribute("reduction", "none"),
    )  # fmt: skip
    return n.reshaped(y, x.shape)


@operator("OneHot")
def one_hot(n: Node) -> Value:
    label, values = n.x, n.input(2)
    depth = n.numbers(1, "the depth")[0]
    axis = n.checked_axis(n.attribute("axis", -1), label.rank + 1)
    at = n.emit("cast({0}, i32)", label) if label.dtype != "i32" else label
    at = n.emit(f"where({{0}} < 0, {{0}} + {depth}, {{0}})", at)
    hot = n.emit(f"one_hot({{0}}, {depth}) > 0.5", at)
    hot = n.transposed(hot, [*range(axis), label.rank, *range(axis, label.rank)])
    if values.known is not None:
        off, on = (number(v, values.dtype) for v in values.known)
        if values.dtype == "f32":
            return n.emit(f"where({{0}}, {on}, {off})", hot)
        return n.emit(f"where({{0}}, cast({on}, {values.dtype}), cast({off}, {values.dtype}))", hot)
    return n.emit("where({0}, {1}[1], {1}[0])", hot, values)


@operator("TopK")
def top_k(n: Node) -> list[Value]:
    axis = n.axis(default=-1)
    k = n.attributes["k"] if "k" in n.attributes else n.numbers(1, "how many")[0]
    last = n.x.rank - 1
    order = [*(a for a in range(n.x.rank) if a != axis), axis]
    back = [order.index(a) for a in range(n.x.rank)]
    x = n.transposed(n.x, order) if axis != last else n.x
    if n.attribute("largest", 1):
        y, at = n.text.emit_results(f"top_k({{0}}, {k})", x, count=2, stem="top")
    else:
        cut = ", ".join([*[":"] * last, f":{k}"])
        y = n.emit(f"sort({{0}})[{cut}]", x)
        at = n.emit(f"argsort({{0}})[{cut}]", x)
    at = n.emit("cast({0}, i64)", at)
    return [n.transposed(y, back), n.transposed(at, back)] if axis != last else [y, at]


@operator("Compress")
def compress(n: Node) -> Value:
    """What a condition keeps that is known."""
    keep = [int(k) for k, c in enumerate(n.known(1, "the condition").reshape(-1)) if c]
    index = known(keep, "i64")
    if "axis" not in n.attributes:
        return n.emit("gather(reshape({0}, [-1]), {1})", n.x, index)
    axis = n.axis()
    return n.emit(f"gather({{0}}, {{1}}, axis = {axis})", n.x, index)


@operator("ReverseSequence")
def reverse_sequence(n: Node) -> Value:
    """The first elements of each example turned round, as many as its length says."""
    x, lengths = n.x, n.input(1)
    time, batch = n.attribute("time_axis", 0), n.attribute("batch_axis", 1)
    order = [batch, time, *(a for a in range(x.rank) if a not in (batch, time))]
    y = n.transposed(x, order)
    steps = y.shape[1]
    at = n.emit("cast(expand({0}, 1), i32)", lengths)
    row = f"expand(iota({steps}), 0)"
    place = n.emit(f"where({row} < {{0}}, {{0}} - 1 - {row}, {row})", at)
    flat = n.emit(f"reshape({{0}} + expand(iota({y.shape[0]}), 1) * {factor(steps)}, [-1])", place)
    rows = n.emit(f"reshape({{0}}, {shown([-1, *y.shape[2:]])})", y)
    z = n.reshaped(n.emit("gather({0}, {1})", rows, flat), y.shape)
    return n.transposed(z, [order.index(a) for a in range(x.rank)])
