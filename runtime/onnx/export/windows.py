"""Windows: which contractions are convolutions, and what the largest or the sum of each window is.

A window is an axis that is read at `constant + stride i + dilation u`, where i is an index of the result and u is
summed over. The same with operand and result exchanged is the adjoint, a transposed convolution. Padding is what a map
reads outside, or what `Pad` put around the operand just before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....compiler.graph.nodes import Node
from ....compiler.graph.ops.contraction import Affine, Map, index_of, is_gathered
from ....compiler.types.sizes import Dim
from ....compiler.types.tensors import FLOATS
from .values import Scope, Value, elements
from .views import cut, padded, turned


@dataclass(frozen=True, slots=True)
class Window:
    """Along one axis: the index `i` of where it stands, `u` of what it reads, so many of each, and where it begins."""

    axis: int
    i: str
    u: str
    stride: int
    dilation: int  # below 0 where the window is read from behind
    start: Dim
    count: Dim
    length: int

    @property
    def first(self) -> Dim:
        """The least that is read."""
        return self.start + min(0, self.dilation) * (self.length - 1)

    @property
    def reach(self) -> int:
        return abs(self.dilation) * (self.length - 1) + 1


def window(axis: int, e: Affine, inner: set[str], extent: Mapping[str, Dim]) -> Window | None:
    """An expression as a window, whose u is one of `inner`; one that is read at a single index is of length 1."""
    outer = [(i, c) for i, c in e[1] if i not in inner]
    own = [(u, c) for u, c in e[1] if u in inner]
    if len(outer) != 1 or len(own) > 1 or outer[0][1] < 1:
        return None
    (i, stride), (u, dilation) = outer[0], own[0] if own else ("", 1)
    length = extent[u] if u else 1
    if not isinstance(length, int) or length < 1 or dilation == 0:
        return None
    return Window(axis, i, u, stride, dilation, e[0], extent[i], length)


def _plain(m: Map) -> list[str] | None:
    """The indices of a map that reads each axis at one, none twice."""
    letters = [index_of(e) for e in m]
    known = [i for i in letters if i is not None]
    return known if len(known) == len(letters) and len(set(known)) == len(known) else None


@dataclass(frozen=True, slots=True)
class Roles:
    """The indices of a convolution: examples, groups, channels before and after, windows in the order of their axes."""

    batch: tuple[str, ...]
    groups: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    windows: tuple[Window, ...]


def _roles(wide: Map, filters: Sequence[str], narrow: Sequence[str], extent: Mapping[str, Dim]) -> Roles | None:
    """Who is who, where `wide` is read in windows of the `filters`, and `narrow` has one element for each window."""
    inner = set(filters) - set(narrow)
    windows: list[Window] = []
    alone: list[str] = []
    for k, e in enumerate(wide):
        i = index_of(e)
        if i is not None:
            alone.append(i)
            continue
        found = window(k, e, inner, extent)
        if found is None:
            return None
        windows.append(found)
    spatial = {w.i for w in windows} | {w.u for w in windows if w.u}
    if not windows or len(windows) > 3 or len(set(alone)) < len(alone) or spatial & set(alone):
        return None
    if len({w.i for w in windows}) < len(windows) or any(w.i in filters for w in windows):
        return None
    rest = [i for i in filters if i not in spatial]
    if any(i not in filters and i not in narrow for i in alone) or any(w.i not in narrow for w in windows):
        return None
    return Roles(
        batch=tuple(i for i in alone if i not in filters),
        groups=tuple(i for i in alone if i in filters and i in narrow),
        before=tuple(i for i in alone if i in filters and i not in narrow),
        after=tuple(i for i in rest if i not in alone and i in narrow),
        windows=tuple(windows),
    )


def convolution(s: Scope, n: Node, xs: Sequence[Value], extent: Mapping[str, Dim]) -> Value | None:
    """A contraction as a convolution or the adjoint of one; None where it is neither."""
    if len(xs) != 2 or xs[0].dtype not in FLOATS:
        return None
    maps: tuple[Map, Map] = n.attrs["maps"]
    out: Map = n.attrs["out"]
    if extent.keys() - {i for m in (*maps, out) for e in m for i, _ in e[1]}:
        return None  # an index that nothing has repeats each term
    for a, b in ((0, 1), (1, 0)):
        filters = _plain(maps[b])
        if filters is None or any(extent[i] != k for i, k in zip(filters, xs[b].shape, strict=True)):
            continue
        narrow = _plain(out) if is_gathered(n) else None
        if narrow is not None and _plain(maps[a]) is None:
            roles = _roles(maps[a], filters, narrow, extent)
            if roles is not None and _complete(roles, filters, narrow):
                return _forward(s, roles, maps[a], xs[a], xs[b], filters, narrow, extent)
        narrow = _plain(maps[a])
        if narrow is not None and _plain(out) is None and _is_all(narrow, xs[a], extent):
            roles = _roles(out, filters, narrow, extent)
            if roles is not None and _complete(roles, filters, narrow):
                return _adjoint(s, roles, out, xs[a], xs[b], filters, narrow, n.shape, extent)
    return None


def _is_all(letters: Sequence[str], x: Value, extent: Mapping[str, Dim]) -> bool:
    return all(extent[i] == k for i, k in zip(letters, x.shape, strict=True))


def _complete(r: Roles, filters: Sequence[str], narrow: Sequence[str]) -> bool:
    """Each index of the filters and of the narrow side has a role."""
    of_filters = {*r.groups, *r.before, *r.after, *(w.u for w in r.windows if w.u)}
    return of_filters == set(filters) and {*r.batch, *r.groups, *r.after, *(w.i for w in r.windows)} == set(narrow)


def _filters(
    s: Scope, r: Roles, v: Value, letters: Sequence[str], channels: Sequence[Sequence[str]], extent: Mapping[str, Dim]
) -> Value:
    """Filters as ONNX has them: axes of channels, then of windows, these read forward."""
    space = [w for w in r.windows if w.u]
    order = [i for c in channels for i in c] + [w.u for w in space]
    v = s.transpose(v, [letters.index(i) for i in order])
    first = sum(map(len, channels))
    v = turned(s, v, [first + k for k, w in enumerate(space) if w.dilation < 0])
    sizes = [elements(extent[i] for i in c) for c in channels]
    return s.reshape(v, [*sizes, *(w.length for w in r.windows)])


def _forward(
    s: Scope, r: Roles, wide: Map, x: Value, f: Value, filters: Sequence[str], narrow: Sequence[str],
    extent: Mapping[str, Dim],
) -> Value | None:  # fmt: skip
    at = {index_of(e): k for k, e in enumerate(wide) if index_of(e) is not None}
    lead = [at[i] for i in (*r.batch, *r.groups, *r.before)]
    if any(x.shape[at[i]] != extent[i] for i in (*r.batch, *r.groups, *r.before)):
        return None
    batch, groups, before, after = (elements(extent[i] for i in c) for c in (r.batch, r.groups, r.before, r.after))
    if not isinstance(groups, int):
        return None
    x = s.transpose(x, [*lead, *(w.axis for w in r.windows)])
    x = s.reshape(x, [batch, groups * before, *(x.shape[len(lead) :])])
    fitted = fit(s, r.windows, x, 0)
    if fitted is None:
        return None
    x, pads = fitted
    f = _filters(s, r, f, filters, (r.groups + r.after, r.before), extent)
    space = [w.count for w in r.windows]
    y = s.emit(
        "Conv", x, f, type=(x.dtype, [batch, groups * after, *space]), group=groups, pads=pads, **_geometry(r.windows)
    )
    letters = [*r.batch, *r.groups, *r.after, *(w.i for w in r.windows)]
    y = s.reshape(y, [extent[i] for i in letters])
    return s.transpose(y, [letters.index(i) for i in narrow])


def _geometry(windows: Sequence[Window]) -> dict[str, Any]:
    return {
        "kernel_shape": [w.length for w in windows],
        "strides": [w.stride for w in windows],
        "dilations": [abs(w.dilation) for w in windows],
    }


def fit(s: Scope, windows: Sequence[Window], x: Value, filler: float) -> tuple[Value, list[int]] | None:
    """An operand [N, C, *space] and what is to be padded with the filler, so that the windows stand where they do and
    there are as many. What `Pad` put around it is taken off again where that is known and the filler."""
    return _fitted(s, windows, x, filler, _around(s, x, filler)) or _fitted(s, windows, x, filler, None)


def _around(s: Scope, x: Value, filler: float) -> list[int] | None:
    """What `Pad` put around the space of a value, before and after, if it is the filler."""
    made = s.maker(x)
    if made is None or made.op != "Pad" or not _fills(s, made.args[2], filler):
        return None
    pads = s.array(made.args[1])
    if pads is None or any(pads[k] or pads[x.rank + k] for k in (0, 1)):
        return None
    return [int(n) for n in (*pads[2 : x.rank], *pads[x.rank + 2 :])]


def _fitted(
    s: Scope, windows: Sequence[Window], x: Value, filler: float, around: Sequence[int] | None
) -> tuple[Value, list[int]] | None:
    rank = len(windows)
    taken = [0] * 2 * rank if around is None else around
    lows: list[int] = []
    highs: list[int] = []
    for k, w in enumerate(windows):
        low, n = -w.first, x.shape[2 + k]
        if not isinstance(low, int):
            return None
        high = w.stride * (w.count - 1) + w.reach - low - n  # how far the last window sticks out
        if not isinstance(high, int):
            if w.count != (n + low - w.reach) // w.stride + 1:
                return None
            high = 0  # as many as fit, which is what ONNX counts
        if filler != 0 and max(low, high) > 0:
            return None  # what a map reads outside is 0
        lows.append(low + taken[k])
        highs.append(high + taken[rank + k])
    made = s.maker(x)
    inner = made.args[0] if around is not None and made is not None else x
    starts, stops = [0] * inner.rank, list(inner.shape)
    for k, w in enumerate(windows):
        starts[2 + k] = max(-lows[k], 0)
        if highs[k] <= -w.stride:  # less is left over where another window would begin
            stops[2 + k] = inner.shape[2 + k] + highs[k]
    return cut(s, inner, starts, stops, [1] * inner.rank), [max(n, 0) for n in (*lows, *highs)]


def _fills(s: Scope, v: Value, filler: float) -> bool:
    number = s.number(v)
    return number is not None and float(number) == filler


def _adjoint(
    s: Scope, r: Roles, wide: Map, x: Value, f: Value, filters: Sequence[str], narrow: Sequence[str],
    shape: Sequence[Dim], extent: Mapping[str, Dim],
) -> Value | None:  # fmt: skip
    """The channels `after` are those of x, and `before` those of the result."""
    batch, groups, before, after = (elements(extent[i] for i in c) for c in (r.batch, r.groups, r.before, r.after))
    if not isinstance(groups, int) or any(w.dilation < 0 for w in r.windows):
        return None
    order = [*r.batch, *r.groups, *r.after, *(w.i for w in r.windows)]
    x = s.transpose(x, [narrow.index(i) for i in order])
    x = s.reshape(x, [batch, groups * after, *(w.count for w in r.windows)])
    f = _filters(s, r, f, filters, (r.groups + r.after, r.before), extent)
    lows: list[int] = []
    highs: list[int] = []
    for w in r.windows:
        low, high = -w.start, w.stride * (w.count - 1) + w.reach + w.start - shape[w.axis]
        if not isinstance(low, int) or not isinstance(high, int):
            return None
        lows.append(low)
        highs.append(high)
    sizes = [shape[w.axis] + min(low, 0) + min(high, 0) for w, low, high in zip(r.windows, lows, highs, strict=True)]
    pads = [max(n, 0) for n in (*lows, *highs)]
    y = s.emit(
        "ConvTranspose", x, f, type=(x.dtype, [batch, groups * before, *sizes]), group=groups, pads=pads,
        **_geometry(r.windows),
    )  # fmt: skip
    y = padded(s, y, [0, 0, *(max(-n, 0) for n in lows)], [0, 0, *(max(-n, 0) for n in highs)], 0)
    letters = [*r.batch, *r.groups, *r.before]
    y = s.reshape(y, [*(extent[i] for i in letters), *y.shape[2:]])
    at = {index_of(e): k for k, e in enumerate(wide) if index_of(e) in letters}
    now = [at[i] for i in letters] + [w.axis for w in r.windows]
    return s.transpose(y, [now.index(k) for k in range(len(now))])


def read_in_windows(g: Mapping[str, Node], name: str, fold: str) -> tuple[Node, set[str]] | None:
    """The contraction that reads one operand window by window, where a value is the `fold` of it, and the indices that
    are folded."""
    n = g[name]
    read = g[n.args[0]] if n.op == fold else n
    if n.op != fold or read.op != "contract" or len(read.args) > 1 or not is_gathered(read):
        return None
    letters = [index_of(e) or "" for e in read.attrs["out"]]
    return read, {letters[k] for k in n.attrs["axes"]}


def pooled(s: Scope, n: Node, x: Value, inner: set[str], op: str, filler: float, **attrs: Any) -> Value | None:
    """Windows of one operand, those of `n`, a contraction that reads them: the largest or the mean of each, with the
    axes that `n` has but for those in `inner`. None where they are no windows, or what pads them is not `filler`."""
    extent: dict[str, Dim] = dict(n.attrs["domain"])
    wide: Map = n.attrs["maps"][0]
    if x.dtype not in FLOATS:
        return None
    lead = [(k, i) for k, e in enumerate(wide) if (i := index_of(e)) is not None and i not in inner]
    found = [window(k, e, inner, extent) for k, e in enumerate(wide) if k not in dict(lead)]
    windows = [w for w in found if w is not None]
    letters = [i for _, i in lead] + [w.i for w in windows]
    kept = [i for e in n.attrs["out"] if (i := index_of(e)) is not None and i not in inner]
    if len(windows) < len(found) or not 1 <= len(windows) <= 3 or sorted(letters) != sorted(kept):
        return None
    if extent.keys() != {*letters, *inner}:
        return None
    if {w.u for w in windows if w.u} != inner or any(x.shape[k] != extent[i] for k, i in lead):
        return None
    x = s.transpose(x, [*(k for k, _ in lead), *(w.axis for w in windows)])
    examples, channels = elements(x.shape[: max(len(lead) - 1, 0)]), x.shape[len(lead) - 1] if lead else 1
    x = s.reshape(x, [examples, channels, *x.shape[len(lead) :]])
    fitted = fit(s, windows, x, filler)
    if fitted is not None and any(p >= w.length for p, w in zip(fitted[1], (*windows, *windows), strict=True)):
        fitted = _fitted(s, windows, x, filler, None) if op == "MaxPool" else None  # ONNX takes no such padding
    if fitted is None:
        return None
    x, pads = fitted
    geometry = _geometry(windows)
    if op == "AveragePool" and set(geometry["dilations"]) == {1}:  # which had none before opset 19
        del geometry["dilations"]
    shape = [examples, channels, *(w.count for w in windows)]
    y = s.emit(op, x, type=(x.dtype, shape), pads=pads, **geometry, **attrs)
    return s.transpose(s.reshape(y, [extent[i] for i in letters]), [letters.index(i) for i in kept])
