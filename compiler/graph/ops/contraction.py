"""Contraction: `out[f(p)] += prod_k in_k[g_k(p)]` for all points p of an iteration domain, with affine index maps.

Matrix products, convolutions of every kind, average pooling and index notation are this one operator, and so is each of
its gradients: exchange the result and the operand. Points where a map leaves its operand read 0, points where `out`
leaves the result are dropped; so zero padding is part of the maps.

Attributes:
* `domain`: ((index, extent), ...);
* `maps`: one per operand, each one affine expression per axis: (constant, ((index, coefficient), ...)), the constant a
  number or a size, also below 0;
* `out`: the affine expressions of the result, and `shape`, its shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ...loops.index import bounds
from ...scalar.function import EACH, NUMBERS
from ...types.sizes import Dim, nonnegative, symbol
from ...types.tensors import TensorType, Type
from ..nodes import Builder, Node
from . import require
from .op import CONTRACT, Op, Sample, ShapeError

_AT_ONCE = 1 << 24  # products in memory

Affine = tuple[Dim, tuple[tuple[str, int], ...]]
Map = tuple[Affine, ...]


def affine(*terms: tuple[str, int], constant: Dim = 0) -> Affine:
    """constant + sum of coefficient * index; like indices are collected, in order of first mention."""
    total: dict[str, int] = {}
    for i, c in terms:
        total[i] = total.get(i, 0) + c
    return constant, tuple((i, c) for i, c in total.items() if c)


def plain(letters: Sequence[str]) -> Map:
    """The map that reads each axis at one index."""
    return tuple((0, ((i, 1),)) for i in letters)


def index_of(e: Affine) -> str | None:
    """`i` where the expression is the index i and nothing else."""
    return e[1][0][0] if e[0] == 0 and len(e[1]) == 1 and e[1][0][1] == 1 else None


def is_plain(node: Node) -> bool:
    """Every axis of every operand and of the result is one index, none twice in a map: an einsum without diagonals."""
    for m in (*node.attrs["maps"], node.attrs["out"]):
        letters = [index_of(e) for e in m]
        if None in letters or len(set(letters)) != len(letters):
            return False
    return True


def is_gathered(node: Node) -> bool:
    """Each element of the result is one sum: its map is one index of full extent per axis. Else terms are scattered."""
    letters = [index_of(e) for e in node.attrs["out"]]
    extent = dict(node.attrs["domain"])
    return len(set(letters)) == len(letters) and all(
        i is not None and extent[i] == n for i, n in zip(letters, node.shape, strict=True)
    )


def safe(e: Affine, n: Dim, node: Node) -> bool:
    """The expression stays inside an axis of size n over the whole domain (whatever the tiles do)."""
    position: Dim = e[0]
    for i, c in e[1]:
        position = position + symbol("@" + i) * c
    low, high = bounds(position, {"@" + i: m for i, m in node.attrs["domain"]})
    if low is None or high is None or not nonnegative(low):
        return False
    return nonnegative(n - 1 - high) or n - 1 - high in node.attrs.get("known", ())


def _infer(types: Sequence[Type], attrs: Any) -> TensorType:
    ts = require.tensors("contract", types, len(attrs["maps"]))
    require.accepted("contract", ts, NUMBERS)
    if not ts:
        raise ShapeError("E0307", "contract needs at least one operand")
    require.same_dtype("contract", ts)
    domain = dict(attrs["domain"])
    if len(domain) != len(attrs["domain"]):
        raise ShapeError("E0307", f"an index of contract is named twice: {', '.join(i for i, _ in attrs['domain'])}")
    result = ts[0].with_shape(require.sizes("contract", attrs["shape"]))
    for k, (t, m) in enumerate(zip((*ts, result), (*attrs["maps"], attrs["out"]), strict=True)):
        require.one_each("contract", t, "index expressions", m)
        for i in (i for e in m for i, _ in e[1]):
            if i not in domain:
                raise ShapeError("E0307", f"contract has no index {i}", (k,) if k < len(ts) else ())
    return result


def _grad(b: Builder, node: Node, dy: str) -> tuple[str | None, ...]:
    """d in_k[g_k(p)] += dy[f(p)] prod_(j != k) in_j[g_j(p)]: the same domain, result and operand k exchanged."""
    domain, maps, out = node.attrs["domain"], node.attrs["maps"], node.attrs["out"]
    return tuple(
        b.emit(
            "contract",
            *node.args[:k],
            dy,
            *node.args[k + 1 :],
            domain=domain,
            out=maps[k],
            maps=(*maps[:k], out, *maps[k + 1 :]),
            shape=b.shape(node.args[k]),
        )
        for k in range(len(node.args))
    )


def _flops(types: Sequence[Any], attrs: Any, result: Any) -> Dim:
    points: Dim = prod(n for _, n in attrs["domain"])
    return max(2, len(types)) * points


def _evaluate(e: Affine, grid: Mapping[str, np.ndarray]) -> Any:
    (constant,) = require.known((e[0],))
    return sum((c * grid[i] for i, c in e[1]), start=np.int64(constant))


def _grid(indices: Sequence[str], extent: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Each index as an array along its own axis."""
    return {
        i: np.arange(extent[i]).reshape([-1 if j == k else 1 for j in range(len(indices))])
        for k, i in enumerate(indices)
    }


def _used(m: Map) -> list[str]:
    return list(dict.fromkeys(i for e in m for i, _ in e[1]))


def _positions(m: Map, shape: Sequence[int], extent: Mapping[str, int]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The indices a map uses; over their grid: the linear position in `shape`, and whether it is inside."""
    used = _used(m)
    grid = _grid(used, extent)
    full = tuple(extent[i] for i in used)
    position, inside = np.zeros(full, np.int64), np.ones(full, bool)
    for e, n in zip(m, shape, strict=True):
        at = _evaluate(e, grid)
        inside &= (at >= 0) & (at < n)
        position = position * n + np.clip(at, 0, max(n - 1, 0))
    return used, position, inside


def _sum_of_products(
    xs: Sequence[np.ndarray], axes: Sequence[Sequence[int]], out: Sequence[int], extent: Sequence[int]
) -> np.ndarray:
    """The products at every point of the domain, summed over the axes that are not in `out`; of a large domain first
    those of one half of an axis that is, then of the other."""
    if prod(extent) > _AT_ONCE and (k := max(out, key=lambda k: extent[k], default=None)) is not None and extent[k] > 1:
        parts = []
        for half in (slice(0, extent[k] // 2), slice(extent[k] // 2, extent[k])):
            cut = [x[tuple(half if j == k else slice(None) for j in ks)] for x, ks in zip(xs, axes, strict=True)]
            some = [n if j != k else half.stop - half.start for j, n in enumerate(extent)]
            parts.append(_sum_of_products(cut, axes, out, some))
        return np.concatenate(parts, list(out).index(k))
    product = np.ones(extent, xs[0].dtype)
    for x, ks in zip(xs, axes, strict=True):
        order = sorted(range(len(ks)), key=lambda j: ks[j])
        product *= x.transpose(order).reshape([n if k in ks else 1 for k, n in enumerate(extent)])
    summed = product.sum(axis=tuple(k for k in range(len(extent)) if k not in out), dtype=product.dtype)
    result: np.ndarray = summed.transpose([sorted(out).index(k) for k in out])
    return result


def _reference(args: Sequence[np.ndarray], attrs: Any, type: TensorType) -> np.ndarray:
    """Each operand is spread over the indices it uses, NumPy's einsum multiplies and sums, the result is scattered."""
    extent: dict[str, int] = dict(attrs["domain"])
    number = {i: k for k, i in enumerate(extent)}
    spread: list[Any] = []
    seen: set[str] = set()
    for x, m in zip(args, attrs["maps"], strict=True):
        used, position, inside = _positions(m, x.shape, extent)
        values = x.reshape(-1)[position] if x.size else np.zeros(position.shape, x.dtype)
        spread += [np.where(inside, values, x.dtype.type(0)), [number[i] for i in used]]
        seen |= set(used)
    dtype = args[0].dtype
    for i in extent:
        if i not in seen:  # an index that no operand uses repeats the term
            spread += [np.ones(extent[i], dtype), [number[i]]]
    shape = require.known(type.shape)
    used, position, inside = _positions(attrs["out"], shape, extent)
    if all(np.isfinite(x).all() for x in spread[::2]):
        terms = np.einsum(*spread, [number[i] for i in used], optimize=len(spread) > 4)
    else:  # einsum takes factors out of sums, and inf * (0 + 1) is not inf * 0 + inf * 1
        terms = _sum_of_products(spread[::2], spread[1::2], [number[i] for i in used], [*extent.values()])
    result = np.zeros(prod(shape), dtype)
    if result.size:
        np.add.at(result, position[inside], terms[inside])
    return result.reshape(shape)


# --- samples ---------------------------------------------------------------------------------------------------------


def _sample(
    shapes: Sequence[tuple[int, ...]],
    domain: dict[str, int],
    maps: Sequence[Map],
    out: Map,
    shape: tuple[int, ...],
    dtype: str = "f32",
) -> Sample:
    attrs = {"domain": tuple(domain.items()), "maps": tuple(maps), "out": out, "shape": shape}
    return Sample(tuple(TensorType(dtype, s) for s in shapes), attrs)


def _letters(spec: str, *shapes: tuple[int, ...], dtype: str = "f32") -> Sample:
    inputs, out = spec.split("->")
    extent = {i: n for m, s in zip(inputs.split(","), shapes, strict=True) for i, n in zip(m, s, strict=True)}
    maps = [plain(m) for m in inputs.split(",")]
    return _sample(shapes, extent, maps, plain(out), tuple(extent[i] for i in out), dtype)


_I, _U = ("i", 1), ("u", 1)

# --- as text: { map += map * map ... for i < SIZE, ... where SIZE >= 0, ... } ----------------------------------------


def _written(attrs: Mapping[str, Any]) -> str:
    product = " * ".join(map(_written_map, attrs["maps"]))
    domain = ", ".join(f"{i} < {n}" for i, n in attrs["domain"])
    known = ", ".join(f"{n} >= 0" for n in attrs.get("known", ()))
    where = f"{' for ' if domain else ''}{domain}{' where ' if known else ''}{known}"
    return f"{_written_map(attrs['out'])} += {product}{where}"


def _written_map(m: Map) -> str:
    return f"[{', '.join(map(_written_affine, m))}]"


def _written_affine(e: Affine) -> str:
    text = ""
    constant, terms = e
    number = constant if isinstance(constant, int) else 0
    for i, c in (*terms, *([("", number)] if number or (constant == 0 and not terms) else [])):
        term = str(abs(c)) if not i else i if abs(c) == 1 else f"{abs(c)}*{i}"
        text += (f" {'-' if c < 0 else '+'} " if text else "-" if c < 0 else "") + term
    return text if isinstance(constant, int) else f"{text} + ({constant})" if text else f"({constant})"


def _read(reader: Any) -> dict[str, Any]:
    """The attributes, from a reader of `graph.text` that stands behind the brace."""

    def affine() -> Affine:
        constant: Dim = 0
        terms: list[tuple[str, int]] = []
        while True:
            sign = -1 if reader.take("-") else 1
            if reader.take("("):
                constant = constant + reader.size()
                reader.need(")")
            elif reader.kind == "number" and reader.text.isdigit():
                c = sign * int(reader.next())
                if reader.take("*"):
                    terms.append((reader.name("an index"), c))
                else:
                    constant += c
            else:
                terms.append((reader.name("an index"), sign))
            if reader.text != "-" and not reader.take("+"):
                return constant, tuple(terms)

    def one_map() -> Map:
        reader.need("[")
        return tuple(reader.several("]", affine))

    out = one_map()
    reader.need("+=")
    maps = [one_map()]
    while reader.take("*"):
        maps.append(one_map())
    domain: list[tuple[str, Dim]] = []
    while reader.take("for" if not domain else ","):
        index = reader.name("an index")
        reader.need("<")
        domain.append((index, reader.size()))
    attrs = {"domain": tuple(domain), "maps": tuple(maps), "out": out}
    known: list[Dim] = []
    while reader.take("where" if not known else ","):
        known.append(reader.size())
        reader.need(">=")
        reader.need("0")
    reader.need("}")
    return {**attrs, "known": tuple(known)} if known else attrs


CONTRACTION = Op(
    name="contract",
    kind=CONTRACT,
    infer=_infer,
    reference=_reference,
    grad=_grad,
    flops=_flops,
    implied=("shape",),
    written=_written,
    read=_read,
    sizes=lambda attrs, types: (n for _, n in attrs["domain"]),
    unsigned=EACH,
    doc="out[f(p)] += prod_k in_k[g_k(p)] over all points p of `domain`, with affine f (`out`) and g_k (`maps`); reads "
    "outside an operand are 0, writes outside the result are dropped; sizes that are `known` are 0 or more",
    samples=(
        _letters("bi,oi->bo", (3, 4), (5, 4)),
        _letters("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
        _letters("i,i->", (6,), (6,)),
        _letters("ij->i", (3, 4)),
        _letters("i,j,ij->", (3,), (4,), (3, 4)),
        _letters("bi,oi->bo", (0, 4), (5, 4)),
        _letters("bi,oi->bo", (3, 0), (5, 0)),
        _letters("bi,oi->bo", (1, 1), (1, 1)),
        _letters(",->", (), ()),
        _letters("i,i->i", (3,), (3,)),
        _letters("ij,jk->ik", (3, 2), (2, 4), dtype="i32"),
        # a convolution with stride 2 and padding 1, the adjoint of it, a diagonal, and an index only the result has
        _sample(((7,), (3,)), {"i": 4, "u": 3}, [(affine(("i", 2), _U, constant=-1),), plain("u")], plain("i"), (4,)),
        _sample(((4,), (3,)), {"i": 4, "u": 3}, [plain("i"), plain("u")], (affine(("i", 2), _U, constant=-1),), (7,)),
        _sample(((3, 3),), {"i": 3}, [(affine(_I), affine(_I))], plain("i"), (3,)),
        _sample(((3,),), {"i": 3, "u": 2}, [plain("i")], plain("iu"), (3, 2)),
    ),
)

ALL = (CONTRACTION,)
