r"""Rewrite rules for contractions that scatter: the adjoint of a window becomes a window, read instead of written.

    forward     y[i] += x[s*i + d*u] * w[u]               reads x under a window
    adjoint     dx[s*i + d*u] += dy[i] * w[u]             writes dx under a window, term by term, in memory
    gathered    dx[p] += dy[(p - d*u) / s] * w[u]         one index per axis: a sum in registers for each element

The position p = s*i + d*u is a new index, and i = (p - d*u) / s is substituted. That is right where an operand has the
axis i, which reads 0 outside. For s = 1 the same window is read backwards:

    dy     p-2  p-1   p
             \   |   /      u = 2, 1, 0
    dx            p

For s > 1 only every s-th position is reached from an i by the same tap, so p = s*p' + r and u = s*u' + r: each of the s
phases r is a window of its own, of stride 1, and a reshape interleaves them again. With s = 2, d = 1 and three taps:

    p       0    1    2    3    4    5         r = 0:  dx[2p'    ] += dy[p' - u'] * w[2u'    ]   u' = 0, 1
    r       0    1    0    1    0    1         r = 1:  dx[2p' + 1] += dy[p' - u'] * w[2u' + 1]   u' = 0
    taps   0,2   1   0,2   1   0,2   1

Reads outside an operand under a window become a copy with margins of 0, so that the loops ask nothing, where a kernel
does not make its loops shorter instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...graph.cost import number
from ...graph.nodes import Graph, Node
from ...graph.ops.contraction import Affine, Map, affine, index_of, is_gathered
from ...graph.product import product
from ...types.sizes import Dim
from ..rewrite import Sweep, Table, rewrite

Domain = dict[str, Dim]


def _fresh(domain: Mapping[str, Dim], stem: str) -> str:
    name, n = stem, 2
    while name in domain:
        name, n = f"{stem}{n}", n + 1
    return name


def _substituted(m: Map, i: str, by: Affine) -> Map:
    """A map with an expression in the place of an index."""
    out: list[Affine] = []
    for constant, terms in m:
        c = dict(terms).get(i, 0)
        rest = [(j, a) for j, a in terms if j != i]
        out.append(affine(*rest, *((j, c * a) for j, a in by[1]), constant=constant + c * by[0]))
    return tuple(out)


def _replaced(domain: Domain, i: str, by: Domain) -> Domain:
    """A domain with other indices in the place of one."""
    return {k: n for j, m in domain.items() for k, n in (by.items() if j == i else [(j, m)])}


def _reads_zero_outside(s: Sweep, n: Node, i: str, extent: Dim) -> bool:
    """An operand has an axis for the index i, so terms outside its range are 0."""
    return any(
        index_of(e) == i and size == extent
        for a, m in zip(n.args, n.attrs["maps"], strict=True)
        for e, size in zip(m, s.shape(a), strict=True)
    )


def _contract(s: Sweep, n: Node, domain: Domain, maps: tuple[Map, ...], out: Map, shape: tuple[Dim, ...]) -> str:
    return s.emit("contract", *n.args, domain=tuple(domain.items()), maps=maps, out=out, shape=shape)


# out[.., s i + d u + c, ..] += ..: gathered axis by axis
def gathered(s: Sweep, n: Node) -> str | None:
    domain: Domain = dict(n.attrs["domain"])
    for k, (e, size) in enumerate(zip(n.attrs["out"], n.shape, strict=True)):
        i = index_of(e)
        if i is not None and domain[i] == size:
            continue
        others = {j for m, f in enumerate(n.attrs["out"]) if m != k for j, _ in f[1]}
        free = [(j, c) for j, c in e[1] if c > 0 and j not in others]
        if len(e[1]) == 1 and free:
            return _spread(s, n, k, domain)
        for j, c in sorted(free, key=lambda t: (-number(domain[t[0]]), -t[1])):
            if _reads_zero_outside(s, n, j, domain[j]):
                found = _window(s, n, k, j, domain) if c == 1 else _phases(s, n, k, j, c, domain)
                if found is not None:
                    return found
    return None


def _window(s: Sweep, n: Node, axis: int, i: str, domain: Domain) -> str:
    """i = p - (the rest)."""
    constant, terms = n.attrs["out"][axis]
    p = _fresh(domain, "p")
    by = affine((p, 1), *((j, -c) for j, c in terms if j != i), constant=-constant)
    out = (*n.attrs["out"][:axis], affine((p, 1)), *n.attrs["out"][axis + 1 :])
    maps = tuple(_substituted(m, i, by) for m in n.attrs["maps"])
    return _contract(s, n, _replaced(domain, i, {p: n.shape[axis]}), maps, out, n.shape)


def _phases(s: Sweep, n: Node, axis: int, i: str, step: int, domain: Domain) -> str | None:
    """Counted from the constant, p = step*(p' + first) + r; so u = step*u' + r and i = p' + first - u' - (the rest)."""
    (constant, terms), size = n.attrs["out"][axis], n.shape[axis]
    odd = [(j, c) for j, c in terms if j != i and c % step]
    if len(odd) != 1 or odd[0][1] != 1:
        return None
    u, taps = odd[0][0], domain[odd[0][0]]
    if not isinstance(taps, int) or not (taps % step == 0 or _reads_zero_outside(s, n, u, taps)):
        return None
    first = -constant // step
    count = (size - 1 - constant) // step - first + 1
    p = _fresh(domain, "p")
    r = _fresh({**domain, p: 0}, "r")
    w = _fresh({**domain, p: 0, r: 0}, u)
    by = affine((p, 1), (w, -1), *((j, -c // step) for j, c in terms if j not in (i, u)), constant=first)
    maps = tuple(_substituted(_substituted(m, i, by), u, affine((w, step), (r, 1))) for m in n.attrs["maps"])
    out = (*n.attrs["out"][:axis], affine((p, 1)), affine((r, 1)), *n.attrs["out"][axis + 1 :])
    new = _replaced(_replaced(domain, i, {p: count, r: step}), u, {w: -(-taps // step)})
    apart = _contract(s, n, new, maps, out, (*n.shape[:axis], count, step, *n.shape[axis + 1 :]))
    whole = s.emit("reshape", apart, shape=(*n.shape[:axis], count * step, *n.shape[axis + 1 :]))
    return _cut(s, whole, axis, -constant - step * first, size)


def _spread(s: Sweep, n: Node, axis: int, domain: Domain) -> str | None:
    """One index: out[.., step*i + constant, ..] is t[.., i, ..] with zeros around each element."""
    ((constant, ((i, step),)), size) = n.attrs["out"][axis], n.shape[axis]
    count = domain[i]
    room = size - constant - count * step
    if not isinstance(room, int):
        return None
    before, after = n.shape[:axis], n.shape[axis + 1 :]
    out = (*n.attrs["out"][:axis], affine((i, 1)), *n.attrs["out"][axis + 1 :])
    t = _contract(s, n, domain, n.attrs["maps"], out, (*before, count, *after))
    if step > 1:
        t = s.emit("reshape", t, shape=(*before, count, 1, *after))
        t = _padded(s, t, {axis + 1: (0, step - 1)})
        t = s.emit("reshape", t, shape=(*before, count * step, *after))
    t = _padded(s, t, {axis: (max(0, constant), max(0, room))})
    return _cut(s, t, axis, max(0, -constant), size)


def _padded(s: Sweep, x: str, by: Mapping[int, tuple[int, int]]) -> str:
    low, high = (tuple(by.get(k, (0, 0))[side] for k in range(len(s.shape(x)))) for side in (0, 1))
    return s.emit("pad", x, low=low, high=high, value=0.0 if s.type(x).dtype in ("f32", "f64") else 0)


def _cut(s: Sweep, x: str, k: int, start: int, size: Dim) -> str:
    """x[.., start : start + size, ..]"""
    shape = s.shape(x)
    starts = tuple(start if j == k else 0 for j in range(len(shape)))
    stops = tuple(start + size if j == k else m for j, m in enumerate(shape))
    return s.emit("slice", x, starts=starts, stops=stops, steps=(1,) * len(shape))


# a window that reads outside its operand reads a copy with margins of 0, unless its kernel leaves out what is outside
def windows_padded(s: Sweep, n: Node) -> str | None:
    if not is_gathered(n):
        return None
    margins = [_margins(dict(n.attrs["domain"]), m, s.shape(a)) for a, m in zip(n.args, n.attrs["maps"], strict=True)]
    outside = [k for k, each in enumerate(margins) if each]
    if not outside or product(n, s) is not None:
        return None
    padded = {k: _padded(s, n.args[k], margins[k]) for k in outside}
    some = (_inside(n, margins, padded, (k,)) for k in outside)  # of two operands one is enough, perhaps
    made = next((m for m in some if product(m, s) is not None), None) or _inside(n, margins, padded, outside)
    return s.emit("contract", *made.args, **made.attrs)


def _inside(n: Node, margins: Sequence[Mapping[int, tuple[int, int]]], padded: Mapping[int, str],
            way: Sequence[int]) -> Node:  # fmt: skip
    """The contraction with some operands padded."""
    args = tuple(padded[k] if k in way else a for k, a in enumerate(n.args))
    maps = tuple(
        tuple((e[0] + margins[k].get(axis, (0, 0))[0], e[1]) for axis, e in enumerate(m)) if k in way else m
        for k, m in enumerate(n.attrs["maps"])
    )
    return Node(n.name, n.op, args, {**n.attrs, "maps": maps}, n.type, n.span)


def _margins(domain: Domain, m: Sequence[Any], shape: Sequence[Dim]) -> dict[int, tuple[int, int]]:
    """How far a window reaches beyond the axes of its operand, where that is known."""
    found: dict[int, tuple[int, int]] = {}
    for axis, (e, size) in enumerate(zip(m, shape, strict=True)):
        if len(e[1]) > 1 and isinstance(size, int) and all(_known(domain[i]) for i, _ in e[1]):
            ends = [(0, c * (domain[i] - 1)) for i, c in e[1]]
            low = e[0] + sum(min(end) for end in ends)
            high = e[0] + sum(max(end) for end in ends)
            if low < 0 or high >= size:
                found[axis] = max(0, -low), max(0, high - size + 1)
    return found


def _known(n: Any) -> bool:
    return isinstance(n, int) and n > 0


# an index of one value is no index: in a sum of indices, and where only the result has it
def one_dropped(s: Sweep, n: Node) -> str | None:
    domain: Domain = dict(n.attrs["domain"])
    out = n.attrs["out"]
    for i, size in domain.items():
        summed = any(len(e[1]) > 1 and i in dict(e[1]) for e in out)
        if size != 1 or len(domain) == 1:
            continue
        if not summed and any(index_of(e) == i for m in n.attrs["maps"] for e in m):
            continue
        kept = tuple(m for m, e in enumerate(out) if index_of(e) != i or n.shape[m] != 1)
        if any(index_of(out[m]) == i for m in kept):
            continue
        maps = tuple(_substituted(m, i, affine()) for m in n.attrs["maps"])
        rest = {j: m for j, m in domain.items() if j != i}
        left = _substituted(tuple(out[m] for m in kept), i, affine())
        small = _contract(s, n, rest, maps, left, tuple(n.shape[m] for m in kept))
        return small if len(kept) == len(out) else s.emit("reshape", small, shape=n.shape)
    return None


# a slice of a contraction computes no more than the slice
def result_sliced(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if m.op != "contract" or not s.single(n.args[0]):
        return None
    domain, out, maps = dict(m.attrs["domain"]), m.attrs["out"], m.attrs["maps"]
    if not is_gathered(m):
        return None
    at = zip(out, m.shape, n.shape, n.attrs["starts"], n.attrs["steps"], strict=True)
    for (_, ((i, _),)), size, cut, start, step in at:
        if size == cut:
            continue
        if not isinstance(start, int):
            return None
        domain[i] = cut
        maps = tuple(_substituted(g, i, affine((i, step), constant=start)) for g in maps)
    return _contract(s, m, domain, maps, out, n.shape)


RULES: Table = {
    "contract": (one_dropped, gathered),
    "slice": (result_sliced,),
}


def margins(graph: Graph) -> Graph:
    """A graph whose windows read inside their operands. It comes after simplification, which sees through pads, and
    after the choice of layouts, on which it depends what kernels can leave out."""
    made = rewrite(graph, {"contract": (windows_padded,)})
    wide = {n.args[0]: n.name for n in made if n.op == "pad" and n.attrs["value"] == 0}

    # where there is a copy with margins, who reads in steps, in which nothing lies side by side, reads that: one of the
    # two need not be kept
    def steps_in_copy(s: Sweep, n: Node) -> str | None:
        args, maps = list(n.args), list(n.attrs["maps"])
        for k, (a, m) in enumerate(zip(n.args, n.attrs["maps"], strict=True)):
            if wide.get(a) in s.b.nodes and any(len(e[1]) == 1 and e[1][0][1] > 1 for e in m):
                args[k], low = wide[a], s[wide[a]].attrs["low"]
                maps[k] = tuple((e[0] + n, e[1]) for e, n in zip(m, low, strict=True))
        return s.emit("contract", *args, **{**n.attrs, "maps": tuple(maps)}) if args != list(n.args) else None

    return rewrite(made, {"contract": (steps_in_copy,)})
