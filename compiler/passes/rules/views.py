"""Rewrite rules for layout operators and reductions: views of views are one view, and reductions see through them.

A broadcast in normal form only adds axes: an axis of size 1 that stretches is dropped by a reshape first. Where a rule
says sizes are equal it means that they are written equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from ...graph.nodes import Node
from ...graph.ops.calculus import number
from ...graph.ops.layout import inverse
from ...types.sizes import Dim
from ...types.tensors import FLOATS, INTS, TensorType
from ..rewrite import Rule, Sweep, Table
from .algebra import ELEMENTWISE, fill

DEPTH = 8  # elementwise operators between a contraction and a reshape


def _ones_apart(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    return tuple(n for n in shape if n != 1)


def squeezes(s: Sweep, n: Node) -> bool:
    """Does this reshape only add or drop axes of size 1?"""
    return n.op == "reshape" and _ones_apart(n.shape) == _ones_apart(s.shape(n.args[0]))


# a view that changes nothing is its operand, unless it stands there to keep a second computation apart from the first
def no_change(s: Sweep, n: Node) -> str | None:
    x = n.args[0]
    if s.type(x) != n.type or n.attrs.get("again"):
        return None
    match n.op:
        case "transpose":
            return x if n.attrs["perm"] == tuple(range(len(n.shape))) else None
        case "flip":
            return x if all(n.shape[k] == 1 for k in n.attrs["axes"]) else None
        case "broadcast" | "reshape" | "assume":
            return x
        case "slice":
            return x if all(a == 0 for a in n.attrs["starts"]) and all(k == 1 for k in n.attrs["steps"]) else None
        case "pad":
            return x if all(a == 0 for a in (*n.attrs["low"], *n.attrs["high"])) else None
        case _:
            return x if len(n.args) == 1 else None  # concat


# reshape(reshape x) = reshape x; reshape(repeated scalar) = repeated scalar
def reshape_merged(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if m.op == "reshape":
        return s.emit("reshape", m.args[0], shape=n.shape)
    if m.op == "broadcast" and not m.attrs["axes"]:
        return s.emit("broadcast", m.args[0], shape=n.shape, axes=())
    if m.op == "constant":
        return s.emit("constant", values=m.attrs["values"], type=n.type)
    return None


# transpose_p(transpose_q x) = transpose_(q after p) x; of a broadcast: the broadcast to the permuted axes
def transpose_merged(s: Sweep, n: Node) -> str | None:
    m, perm = s[n.args[0]], n.attrs["perm"]
    if m.op == "transpose":
        return s.emit("transpose", m.args[0], perm=tuple(m.attrs["perm"][k] for k in perm))
    if m.op == "broadcast":
        went = inverse(perm)
        places = [went[a] for a in m.attrs["axes"]]
        order = tuple(sorted(range(len(places)), key=lambda k: places[k]))
        x = m.args[0] if order == tuple(range(len(order))) else s.emit("transpose", m.args[0], perm=order)
        return s.emit("broadcast", x, shape=n.shape, axes=tuple(sorted(places)))
    return None


# a transpose that moves only axes of size 1 is a reshape
def transpose_of_ones(s: Sweep, n: Node) -> str | None:
    moved = [k for k in n.attrs["perm"] if s.shape(n.args[0])[k] != 1]
    return s.emit("reshape", n.args[0], shape=n.shape) if moved == sorted(moved) else None


# transpose(x with axes of size 1) = (transpose x) with axes of size 1
def transpose_of_squeeze(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if not squeezes(s, m) or 1 in s.shape(m.args[0]):
        return None
    place = {k: j for j, k in enumerate(k for k, size in enumerate(m.shape) if size != 1)}
    small = s.emit("transpose", m.args[0], perm=tuple(place[k] for k in n.attrs["perm"] if k in place))
    return s.emit("reshape", small, shape=n.shape)


# broadcast(broadcast x) = broadcast x, to where the inner axes go
def broadcast_merged(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if m.op != "broadcast":
        return None
    return s.emit("broadcast", m.args[0], shape=n.shape, axes=tuple(n.attrs["axes"][a] for a in m.attrs["axes"]))


# an axis of size 1 that is repeated, or that a reshape put there to be repeated, need not be there
def broadcast_squeezed(s: Sweep, n: Node) -> str | None:
    x = n.args[0]
    kept = [k for k, size in enumerate(s.shape(x)) if size != 1]
    if len(kept) == len(s.shape(x)):
        return None
    axes = tuple(n.attrs["axes"][k] for k in kept)
    small = s.emit("reshape", x, shape=tuple(s.shape(x)[k] for k in kept))
    return s.emit("broadcast", small, shape=n.shape, axes=axes)


# x[a:b][c:d:t] = x[a + c : a + d : t]; any slice of a repeated scalar is a repeated scalar
def slice_merged(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if m.op == "broadcast" and not m.attrs["axes"]:
        return s.emit("broadcast", m.args[0], shape=n.shape, axes=())
    if m.op != "slice" or any(k != 1 for k in m.attrs["steps"]):
        return None
    starts = tuple(a + c for a, c in zip(m.attrs["starts"], n.attrs["starts"], strict=True))
    stops = tuple(a + d for a, d in zip(m.attrs["starts"], n.attrs["stops"], strict=True))
    return s.emit("slice", m.args[0], starts=starts, stops=stops, steps=n.attrs["steps"])


# a slice within one operand of a concat is a slice of that operand
def slice_of_concat(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if m.op != "concat":
        return None
    axis = m.attrs["axis"]
    a, b = n.attrs["starts"][axis], n.attrs["stops"][axis]
    begin: Dim = 0
    for x in m.args:
        end = begin + s.shape(x)[axis]
        if (a == begin or _at_least(a, begin)) and (b == end or _at_least(end, b)):
            starts = tuple(v - begin if k == axis else v for k, v in enumerate(n.attrs["starts"]))
            stops = tuple(v - begin if k == axis else v for k, v in enumerate(n.attrs["stops"]))
            return s.emit("slice", x, starts=starts, stops=stops, steps=n.attrs["steps"])
        begin = end
    return None


# what was padded and cut off again: slice(pad x) within x is a slice of x
def slice_of_pad(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if m.op != "pad":
        return None
    low, shape = m.attrs["low"], s.shape(m.args[0])
    starts = tuple(a - k for a, k in zip(n.attrs["starts"], low, strict=True))
    stops = tuple(b - k for b, k in zip(n.attrs["stops"], low, strict=True))
    inside = all(_at_least(a, 0) for a in starts) and all(_at_least(z, b) for z, b in zip(shape, stops, strict=True))
    return s.emit("slice", m.args[0], starts=starts, stops=stops, steps=n.attrs["steps"]) if inside else None


def _at_least(a: Dim, b: Dim) -> bool:
    """Certainly a >= b."""
    difference = a - b
    return isinstance(difference, int) and difference >= 0


# --- reductions ------------------------------------------------------------------------------------------------------


def _without(shape: Sequence[Dim], axes: Sequence[int]) -> tuple[Dim, ...]:
    return tuple(n for k, n in enumerate(shape) if k not in axes)


# a reduction over no axis is its operand, over an axis of size 1 a reshape
def reduce_ones(s: Sweep, n: Node) -> str | None:
    (x,), axes = n.args, n.attrs["axes"]
    ones = tuple(k for k in axes if s.shape(x)[k] == 1)
    if not axes:
        return x
    if not ones:
        return None
    small = s.emit("reshape", x, shape=_without(s.shape(x), ones))
    rest = tuple(k - sum(one < k for one in ones) for k in axes if k not in ones)
    return s.emit(n.op, small, axes=rest)


# sum_a(sum_b x) = sum_(a, b) x, and so for products, maxima and minima
def reduce_merged(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if m.op != n.op or not s.single(n.args[0]):
        return None
    left = [k for k in range(len(s.shape(m.args[0]))) if k not in m.attrs["axes"]]
    return s.emit(n.op, m.args[0], axes=tuple(sorted((*m.attrs["axes"], *(left[k] for k in n.attrs["axes"])))))


# reduce(transpose x) = transpose(reduce x)
def reduce_of_transpose(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if m.op != "transpose":
        return None
    perm, axes = m.attrs["perm"], n.attrs["axes"]
    gone = tuple(sorted(perm[k] for k in axes))
    left = [perm[k] for k in range(len(perm)) if k not in axes]
    rank = {k: i for i, k in enumerate(sorted(left))}
    return s.emit("transpose", s.emit(n.op, m.args[0], axes=gone), perm=tuple(rank[k] for k in left))


# sum over n copies of x = n x; a maximum or minimum of copies is x. For n that may be 0 only of finite numbers.
def reduce_of_broadcast(s: Sweep, n: Node) -> str | None:
    m, axes = s[n.args[0]], n.attrs["axes"]
    if m.op != "broadcast" or n.op == "reduce_prod":
        return None
    x, went = m.args[0], m.attrs["axes"]
    if _ones_apart(s.shape(x)) != s.shape(x):
        return None  # not in normal form yet
    copies = [m.shape[k] for k in axes if k not in went]
    if not copies:
        return None
    c = number(s, x)
    surely = all(isinstance(k, int) and k > 0 for k in copies)
    if not surely and (n.op != "reduce_sum" or n.dtype not in FLOATS or c is None or not isfinite(c)):
        return None
    inner = tuple(k for k, a in enumerate(went) if a in axes)
    small = s.emit(n.op, x, axes=inner) if inner else x
    if n.op == "reduce_sum":
        count: Dim = 1
        for k in copies:
            count = count * k
        t = s.type(small)
        factor = s.emit("size", size=count, dtype=t.dtype)
        small = s.emit("mul", small, s.emit("broadcast", factor, shape=t.shape, axes=()) if t.shape else factor)
    left = [k for k in range(len(m.shape)) if k not in axes]
    return s.emit("broadcast", small, shape=n.shape, axes=tuple(left.index(a) for a in went if a not in axes))


# reduce(x with axes of size 1) = reduce x, with axes of size 1
def reduce_of_squeeze(s: Sweep, n: Node) -> str | None:
    m = s[n.args[0]]
    if not squeezes(s, m):
        return None
    inner = [k for k, size in enumerate(s.shape(m.args[0])) if size != 1]
    outer = [k for k, size in enumerate(m.shape) if size != 1]
    axes = tuple(inner[outer.index(k)] for k in n.attrs["axes"] if k in outer)
    return s.emit("reshape", s.emit(n.op, m.args[0], axes=axes), shape=n.shape)


# a size that is a number is that number
def size_known(s: Sweep, n: Node) -> str | None:
    size = n.attrs["size"]
    if not isinstance(size, int):
        return None
    return s.emit("constant", values=(size if n.dtype in INTS else float(size),), type=n.type)


# f(x as another shape of 1s, numbers) = f(x, numbers) as that shape: reshapes move to where they meet a broadcast
def before_squeeze(s: Sweep, n: Node) -> str | None:
    shapes = [a for a in n.args if number(s, a) is None]
    if not shapes or any(not squeezes(s, s[a]) for a in shapes) or len(n.shape) < 1:
        return None
    small = s.shape(s[shapes[0]].args[0])
    if any(s.shape(s[a].args[0]) != small for a in shapes) or len(small) >= len(n.shape):
        return None
    args = []
    for a in n.args:
        c = number(s, a)
        t = TensorType(s.type(a).dtype, small)
        args.append(s[a].args[0] if c is None else fill(s, c, t))
    return s.emit("reshape", s.emit(n.op, *args, **n.attrs), shape=n.shape)


# f(contraction as another shape, numbers) = f(contraction, numbers) as that shape: it is computed in registers
def before_reshape(s: Sweep, n: Node) -> str | None:
    shapes = [a for a in n.args if number(s, a) is None]
    if (
        len(shapes) != 1
        or s[shapes[0]].op != "reshape"
        or not (s.single(shapes[0]) and _flows(s, s[shapes[0]].args[0]))
    ):
        return None
    small = s.shape(s[shapes[0]].args[0])
    args = []
    for a in n.args:
        c = number(s, a)
        args.append(s[a].args[0] if c is None else fill(s, c, TensorType(s.type(a).dtype, small)))
    return s.emit("reshape", s.emit(n.op, *args, **n.attrs), shape=n.shape)


def _flows(s: Sweep, name: str) -> bool:
    """Whether this comes element by element of a contraction, and nothing else reads what is between."""
    for _ in range(DEPTH):
        n = s[name]
        if not s.single(name) or n.op == "contract":
            return s.single(name)
        of = [a for a in n.args if s[a].op != "broadcast"]
        if n.op not in ELEMENTWISE or len(of) != 1:
            return False
        name = of[0]
    return False


_REDUCE: tuple[Rule, ...] = (reduce_ones, reduce_merged, reduce_of_transpose, reduce_of_broadcast, reduce_of_squeeze)

RULES: Table = {
    "reshape": (no_change, reshape_merged),
    "assume": (no_change,),
    "transpose": (no_change, transpose_merged, transpose_of_ones, transpose_of_squeeze),
    "broadcast": (no_change, broadcast_merged, broadcast_squeezed),
    "flip": (no_change,),
    "slice": (no_change, slice_merged, slice_of_concat, slice_of_pad),
    "pad": (no_change,),
    "concat": (no_change,),
    "reduce_sum": _REDUCE,
    "reduce_prod": (reduce_ones, reduce_merged, reduce_of_transpose, reduce_of_squeeze),
    "reduce_max": _REDUCE,
    "reduce_min": _REDUCE,
    "size": (size_known,),
    **{op: (before_squeeze, before_reshape) for op in ELEMENTWISE},
}
