"""Rewrite rules for contractions: views of operands and results become part of the index maps, so nothing is copied;
and a contraction that is really a sum or a product of two tensors becomes one, so that it fuses with its neighbours.

A map may read outside its operand, where it reads 0. A rule that exchanges the operand keeps that: it applies where the
map stays inside, or where what lies outside is 0 as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from ...graph.nodes import Node
from ...graph.ops import OPS
from ...graph.ops.contraction import Affine, Map, index_of, is_plain
from ...graph.ops.op import Seen
from ...types.sizes import Dim, nonnegative
from ..rewrite import Sweep, Table

ZERO: Affine = (0, ())
Facts = tuple[Dim, ...]


def _inside(e: Affine, n: Dim, extent: Mapping[str, Dim]) -> bool:
    """Certainly 0 <= e < n everywhere in the domain."""
    i = index_of(e)
    if i is not None and extent[i] == n:
        return True
    if not (isinstance(n, int) and isinstance(e[0], int)):
        return False
    low = high = e[0]
    for j, c in e[1]:
        size = extent[j]
        if not isinstance(size, int):
            return False
        low, high = low + min(0, c * (size - 1)), high + max(0, c * (size - 1))
    return low >= 0 and high < n


def _ends_within(e: Affine | None, n: Dim, extent: Mapping[str, Dim]) -> bool:
    """Certainly e < n everywhere in the domain."""
    if e is None:
        return False
    last = sum((max(c, 0) * (extent[i] - 1) for i, c in e[1]), e[0])
    return nonnegative(n - 1 - last)


def _seen_through(s: Sweep, name: str, m: Map, extent: Mapping[str, Dim]) -> tuple[str, Map, Facts] | None:
    """The operand behind a view, the map that reads it, and sizes that are 0 or more because the view is one."""
    v = s[name]
    axes = OPS[v.op].axes if v.args else None
    seen = axes(v.attrs, s.shape(v.args[0]), v.shape) if axes else None
    if seen is None or not _keeps_zero(s, v, m, extent):
        return None
    x = v.args[0]
    if v.op == "reshape":  # without axes of size 1
        small = s.emit("reshape", x, shape=tuple(n for n in s.shape(x) if n != 1))
        return small, tuple(e for n, e in zip(v.shape, m, strict=True) if n != 1), ()
    read = [_at(k, m) for k in seen]
    facts: Facts = ()
    if v.op == "slice":
        for k, (e, n) in enumerate(zip(read, s.shape(x), strict=True)):
            if not _ends_within(e, n, extent):
                if v.attrs["steps"][k] != 1:
                    return None  # there the kernel would ask at each read
                facts += (n - v.attrs["stops"][k],)
    return (x, tuple(e for e in read if e is not None), facts) if None not in read else None


def _at(seen: Seen, m: Map) -> Affine | None:
    """Where an axis is read, v[i] = x[start + step i]; None where that is no number."""
    if seen.axis is None or not isinstance(seen.start, int):
        return None
    constant, terms = m[seen.axis]
    return seen.start + seen.step * constant, tuple((i, seen.step * c) for i, c in terms)


def _keeps_zero(s: Sweep, v: Node, m: Map, extent: Mapping[str, Dim]) -> bool:
    """Whether what the map reads outside of a view, which is 0, is 0 in its operand as well."""
    inside = [_inside(e, n, extent) for e, n in zip(m, v.shape, strict=True)]
    match v.op:
        case "transpose" | "flip":
            return True
        case "broadcast":
            return 1 not in s.shape(v.args[0]) and all(ok or k in v.attrs["axes"] for k, ok in enumerate(inside))
        case "reshape":  # axes of size 1 are read at 0, or not at all
            return 1 in v.shape and all(ok for n, ok in zip(v.shape, inside, strict=True) if n == 1)
        case "pad":  # 0 outside x too
            return v.attrs["value"] == 0 and _read_once(v, m)
        case "slice":
            return all(inside)
    return False


def _read_once(pad: Node, m: Map) -> bool:
    """Whether a contraction reads padded axes straight through. Under a window (i + u) each element is read many times:
    there one padded copy costs less than asking at each read whether it is inside (measured: 37 against 2.7 ms)."""
    low, high = pad.attrs["low"], pad.attrs["high"]
    return all(isinstance(a, int) for a in low) and all(
        len(e[1]) <= 1 for e, a, b in zip(m, low, high, strict=True) if a != 0 or b != 0
    )


# out[f] += view(x)[g] ... = out[f] += x[g'] ...
def operands_seen_through(s: Sweep, n: Node) -> str | None:
    extent = dict(n.attrs["domain"])
    for k, (a, m) in enumerate(zip(n.args, n.attrs["maps"], strict=True)):
        through = _seen_through(s, a, m, extent)
        if through is not None:
            x, g, facts = through
            attrs = {**n.attrs, "maps": (*n.attrs["maps"][:k], g, *n.attrs["maps"][k + 1 :])}
            if facts:
                attrs["known"] = tuple(dict.fromkeys((*n.attrs.get("known", ()), *facts)))
            return s.emit("contract", *n.args[:k], x, *n.args[k + 1 :], **attrs)
    return None


# transpose(contraction) = the contraction into the other shape
def result_moved(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if m.op != "contract" or not s.single(n.args[0]):
        return None
    out = tuple(m.attrs["out"][k] for k in n.attrs["perm"])
    return s.emit("contract", *m.args, **{**m.attrs, "out": out, "shape": n.shape})


# the sum of a contraction's result over an axis that it fills: the contraction without that axis
def result_summed(s: Sweep, n: Node) -> str | None:
    m, axes = s[n.args[0]], n.attrs["axes"]
    if m.op != "contract" or not s.single(n.args[0]):
        return None
    extent, out = dict(m.attrs["domain"]), m.attrs["out"]
    if not all(_inside(out[k], m.shape[k], extent) for k in axes):
        return None
    left = tuple(e for k, e in enumerate(out) if k not in axes)
    return s.emit("contract", *m.args, **{**m.attrs, "out": left, "shape": n.shape})


# a contraction of one operand over its own axes is a sum, then a transpose
def is_sum(s: Sweep, n: Node) -> str | None:
    if len(n.args) != 1 or not is_plain(n):
        return None
    letters = [index_of(e) for e in n.attrs["maps"][0]]
    out = [index_of(e) for e in n.attrs["out"]]
    extent = dict(n.attrs["domain"])
    if set(extent) != set(letters) or not set(out) <= set(letters) or not _fits(s, n):
        return None
    kept = [i for i in letters if i in out]
    total = s.emit("reduce_sum", n.args[0], axes=tuple(k for k, i in enumerate(letters) if i not in out))
    return s.emit("transpose", total, perm=tuple(kept.index(i) for i in out))


# a contraction that sums over nothing is a product
def is_product(s: Sweep, n: Node) -> str | None:
    if not is_plain(n) or not _fits(s, n):
        return None
    out = [index_of(e) for e in n.attrs["out"]]
    used = {i for m in n.attrs["maps"] for e in m for i, _ in e[1]}
    if set(out) != {i for i, _ in n.attrs["domain"]} or not used <= set(out):
        return None
    product: str | None = None
    for a, m in zip(n.args, n.attrs["maps"], strict=True):
        x = _spread(s, a, [index_of(e) for e in m], out, n.shape)
        product = x if product is None else s.emit("mul", product, x)
    return product


# a contraction that sums over nothing and reads one operand in steps, or in windows that do not overlap: a slice, with
# the axes of windows split in two
def is_slice(s: Sweep, n: Node) -> str | None:
    extent, out = dict(n.attrs["domain"]), [index_of(e) for e in n.attrs["out"]]
    m, shape = n.attrs["maps"][0], s.shape(n.args[0])
    letters = [i for e in m for i, _ in sorted(e[1], key=lambda t: -t[1])]
    if len(n.args) != 1 or len(set(letters)) != len(letters) or set(out) != set(extent) or len(set(out)) != len(out):
        return None
    if not all(extent[i] == size for i, size in zip(out, n.shape, strict=True)):
        return None
    if not all(_inside(e, size, extent) and _in_steps(e, extent) for e, size in zip(m, shape, strict=True)):
        return None
    steps = tuple(min(c for _, c in e[1]) for e in m)
    sizes = tuple(prod(extent[i] for i, _ in e[1]) for e in m)
    stops = tuple(e[0] + c * (size - 1) + 1 for e, c, size in zip(m, steps, sizes, strict=True))
    x = s.emit("slice", n.args[0], starts=tuple(e[0] for e in m), stops=stops, steps=steps)
    x = s.emit("reshape", x, shape=tuple(extent[i] for i in letters))
    return _spread(s, x, letters, out, n.shape)


def _in_steps(e: Affine, extent: Mapping[str, Dim]) -> bool:
    """One index, or two of which the second fills the steps of the first; of known or whole extent."""
    terms = sorted(e[1], key=lambda t: -t[1])
    if not terms or any(c < 1 or extent[i] == 0 for i, c in terms):
        return False
    return len(terms) == 1 or (len(terms) == 2 and terms[1][1] == 1 and extent[terms[1][0]] == terms[0][1])


def _spread(s: Sweep, x: str, letters: Sequence[str | None], out: Sequence[str | None], shape: tuple[Dim, ...]) -> str:
    """x, whose axes are `letters`, repeated along the others of `out`."""
    order = tuple(sorted(range(len(letters)), key=lambda k: out.index(letters[k])))
    x = s.emit("transpose", x, perm=order)
    return s.emit("broadcast", x, shape=shape, axes=tuple(out.index(letters[k]) for k in order))


def _fits(s: Sweep, n: Node) -> bool:
    """Every index of a plain contraction runs over exactly the axes it stands for."""
    extent = dict(n.attrs["domain"])
    shapes = [*(s.shape(a) for a in n.args), n.shape]
    return all(
        extent[index_of(e)] == size
        for m, shape in zip((*n.attrs["maps"], n.attrs["out"]), shapes, strict=True)
        for e, size in zip(m, shape, strict=True)
    )


# a row of a stack is read without the axis along which it was cut
def operand_of_a_row(s: Sweep, n: Node) -> str | None:
    extent = dict(n.attrs["domain"])
    for k, (a, m) in enumerate(zip(n.args, n.attrs["maps"], strict=True)):
        row = s[a]
        if row.op != "slice":
            continue
        cut = [
            j for j, (size, whole) in enumerate(zip(row.shape, s.shape(row.args[0]), strict=True)) if size == 1 != whole
        ]
        if cut and all(_inside(m[j], 1, extent) for j in cut):
            left = [j for j in range(len(m)) if j not in cut]
            x = s.emit("reshape", a, shape=tuple(row.shape[j] for j in left))
            maps = (*n.attrs["maps"][:k], tuple(m[j] for j in left), *n.attrs["maps"][k + 1 :])
            return s.emit("contract", *n.args[:k], x, *n.args[k + 1 :], **{**n.attrs, "maps": maps})
    return None


RULES: Table = {
    "contract": (operands_seen_through, operand_of_a_row, is_sum, is_product, is_slice),
    "transpose": (result_moved,),
    "reduce_sum": (result_summed,),
}
