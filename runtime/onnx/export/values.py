"""Values of an ONNX graph under construction, and the nodes that make them.

In: operators of ONNX and what they read, with our sizes. Out: `Value`s, and in the end a list of nodes. Equal nodes are
made once, what undoes what was just done is not made at all, and what nobody reads is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from ....compiler.types.sizes import Dim, Quotient, Symbol, nonnegative, substitute, symbol, symbols, terms
from ...call.arrays import NUMPY
from ...extras import optional

NEED = ("onnx", "onnx", "writing ONNX needs the library `onnx`")
I64_MIN, I64_MAX = -(2**63), 2**63 - 1
PLAIN: Mapping[str, Any] = {**NUMPY, "u64": np.uint64}


class Refused(Exception):
    """What has no counterpart in ONNX, in words."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor by its name in the graph. `shape` is what it has there: an axis of size 1, or one that is missing in
    front, may stand for more of the same."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, slots=True)
class Made:
    """A node: its operator, what it reads, its attributes, the names of its results."""

    op: str
    args: tuple[Value, ...]
    attrs: Mapping[str, Any]
    results: tuple[str, ...]
    domain: str = ""
    label: str = ""
    bodies: tuple[Any, ...] = ()  # of `Scope`, for attributes that are graphs


@dataclass(slots=True)
class Scope:
    """Where nodes are made: of a model, of a function, or of the body of a loop `inside` another scope."""

    opset: int
    inside: Scope | None = None
    label: str = ""  # of nodes that are made now
    nodes: list[Made] = field(default_factory=list)
    sources: list[Value] = field(default_factory=list)  # inputs, whose shapes say what sizes are
    bound: dict[str, Value] = field(default_factory=dict)  # i64[1] of the symbols that are no size of an input
    asked: list[str] = field(default_factory=list)  # symbols that a function has to be given
    constants: dict[str, np.ndarray] = field(default_factory=dict)  # by the name of the value
    _made: dict[Any, tuple[Value, ...]] = field(default_factory=dict)
    _by: dict[str, Made] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.inside is not None:
            self._names, self.label = self.inside._names, self.inside.label

    # --- nodes

    def fresh(self, stem: str) -> str:
        """A name that nothing has in the graph."""
        n = self._names[stem] = self._names.get(stem, 0) + 1
        return stem if n == 1 else self.fresh(f"{stem}_{n}")

    def emit(self, op: str, *args: Value, type: tuple[str, Sequence[Dim]], domain: str = "", **attrs: Any) -> Value:
        """The one result of a node."""
        return self.emits(op, *args, types=(type,), domain=domain, **attrs)[0]

    def emits(
        self,
        op: str,
        *args: Value,
        types: Sequence[tuple[str, Sequence[Dim]]],
        domain: str = "",
        bodies: tuple[Scope, ...] = (),
        **attrs: Any,
    ) -> tuple[Value, ...]:
        """The results of a node; of one that was made before, those."""
        key = None if bodies else (op, domain, args, tuple(sorted((k, _hashable(v)) for k, v in attrs.items())))
        found = self._found(key) if key is not None else None
        if found is not None:
            return found
        stem = f"{self.label}/{op}" if self.label else op.lower()
        values = tuple(Value(self.fresh(stem), dtype, tuple(shape)) for dtype, shape in types)
        made = Made(op, args, attrs, tuple(v.name for v in values), domain, self.label, bodies)
        self.nodes.append(made)
        self._by |= {v.name: made for v in values}
        if key is not None:
            self._made[key] = values
        return values

    def _found(self, key: Any) -> tuple[Value, ...] | None:
        if key in self._made:
            return self._made[key]
        return self.inside._found(key) if self.inside is not None else None

    def maker(self, v: Value) -> Made | None:
        """The node that made a value."""
        if v.name in self._by:
            return self._by[v.name]
        return self.inside.maker(v) if self.inside is not None else None

    def constant(self, array: Any, dtype: str) -> Value:
        a = np.asarray(array, PLAIN[dtype])
        key = ("constant", dtype, a.shape, a.tobytes())
        found = self._found(key)
        if found is not None:
            return found[0]
        v = Value(self.fresh("constant"), dtype, a.shape)
        self._made[key] = (v,)
        self.constants[v.name] = a
        return v

    def array(self, v: Value) -> np.ndarray | None:
        """What a value is, if it is a constant."""
        if v.name in self.constants:
            return self.constants[v.name]
        return self.inside.array(v) if self.inside is not None else None

    def number(self, v: Value) -> Any:
        """The number that a value is everywhere, if it is a constant of one."""
        a = self.array(v)
        return a.reshape(-1)[0] if a is not None and a.size == 1 else None

    # --- sizes

    def size(self, n: Dim) -> Value:
        """A size, as i64[1]."""
        if isinstance(n, int):
            return self.constant([n], "i64")
        total: Value | None = None
        for monomial, k in terms(n):
            term = self.constant([abs(k)], "i64") if abs(k) != 1 or not monomial else None
            for atom in monomial:
                factor = self._symbol(atom.name) if isinstance(atom, Symbol) else self._quotient(atom)
                term = factor if term is None else self._whole("Mul", term, factor)
            assert term is not None
            if total is None:
                total = term if k > 0 else self._whole("Neg", term)
            else:
                total = self._whole("Add" if k > 0 else "Sub", total, term)
        assert total is not None
        return total

    def _whole(self, op: str, *args: Value) -> Value:
        return self.emit(op, *args, type=("i64", (1,)))

    def _quotient(self, q: Quotient) -> Value:
        top, bottom = self.size(q.top), self.size(q.bottom)
        if q.op == "%":
            return self._whole("Mod", top, bottom)
        if not nonnegative(q.top):  # ONNX divides towards 0
            top = self._whole("Sub", top, self._whole("Mod", top, bottom))
        return self._whole("Div", top, bottom)

    def _symbol(self, name: str) -> Value:
        if (bound := self._bound(name)) is not None:
            return bound
        return self._solved(name)

    def _bound(self, name: str) -> Value | None:
        if name in self.bound:
            return self.bound[name]
        return self.inside._bound(name) if self.inside is not None else None

    def _solved(self, name: str) -> Value:
        """A symbol from the shapes of the inputs: where it stands alone, or in a sum or a multiple."""
        if self.inside is not None:
            return self.inside._solved(name)
        axes = [(v, k, n) for v in self.sources for k, n in enumerate(v.shape) if not isinstance(n, int)]
        for v, k, n in axes:
            if n == symbol(name):
                return self.emit("Shape", v, type=("i64", (1,)), start=k, end=k + 1)
        for v, k, n in axes:
            rest = substitute(n, {name: 0})
            slope = n - rest
            times = substitute(slope, {name: 1})
            if symbols(n) == {name} and isinstance(times, int) and times > 0 and slope == times * symbol(name):
                length = self.emit("Shape", v, type=("i64", (1,)), start=k, end=k + 1)
                length = self._whole("Sub", length, self.size(rest)) if rest != 0 else length
                return self._whole("Div", length, self.size(times))
        given = Value(self.fresh(f"size_{name}"), "i64", (1,))
        self.bound[name] = given
        self.asked.append(name)
        return given

    def shape(self, sizes: Sequence[Dim]) -> Value:
        """Sizes, as i64[n]."""
        pieces: list[Value] = []
        numbers: list[int] = []
        for n in (*sizes, None):
            if isinstance(n, int):
                numbers.append(n)
                continue
            if numbers:
                pieces.append(self.constant(numbers, "i64"))
                numbers = []
            if n is not None:
                pieces.append(self.size(n))
        if not pieces:
            return self.constant(np.zeros(0, np.int64), "i64")
        return pieces[0] if len(pieces) == 1 else self.emit("Concat", *pieces, type=("i64", (len(sizes),)), axis=0)

    # --- views

    def reshape(self, v: Value, shape: Sequence[Dim]) -> Value:
        """The same elements under another shape."""
        shape = tuple(shape)
        while (made := self.maker(v)) is not None and made.op in ("Reshape", "Unsqueeze") and "kept" not in made.attrs:
            v = made.args[0]
        if v.shape == shape:
            return v
        if (axes := _inserted(v.shape, shape)) is not None:
            return self.emit("Unsqueeze", v, self.constant(axes, "i64"), type=(v.dtype, shape))
        wanted = [0 if k < v.rank and n == v.shape[k] and not isinstance(n, int) else n for k, n in enumerate(shape)]
        free = [k for k, n in enumerate(wanted) if not isinstance(n, int)]
        if 0 in shape or (len(free) > 1):
            return self.emit("Reshape", v, self.shape(shape), type=(v.dtype, shape), allowzero=1)
        return self.emit(
            "Reshape", v, self.constant([-1 if k in free else n for k, n in enumerate(wanted)], "i64"),
            type=(v.dtype, shape),
        )  # fmt: skip

    def transpose(self, v: Value, perm: Sequence[int]) -> Value:
        """Axis k of the result is axis `perm[k]`."""
        perm = tuple(perm)
        made = self.maker(v)
        if made is not None and made.op == "Transpose":
            v, before = made.args[0], made.attrs["perm"]
            perm = tuple(before[k] for k in perm)
        if perm == tuple(range(len(perm))):
            return v
        shape = tuple(v.shape[k] for k in perm)
        long = [k for k in perm if v.shape[k] != 1]
        if long == sorted(long):
            return self.reshape(v, shape)
        return self.emit("Transpose", v, type=(v.dtype, shape), perm=perm)

    def expand(self, v: Value, shape: Sequence[Dim]) -> Value:
        """Repeated along axes that it has not, or of which it has one."""
        shape = tuple(shape)
        return v if v.shape == shape else self.emit("Expand", v, self.shape(shape), type=(v.dtype, shape))

    def beside(self, v: Value, rank: int, axes: Sequence[int]) -> Value:
        """Axis k becomes axis `axes[k]` of so many; others have size 1, and are left out in front."""
        first = min(axes, default=rank)
        shape: list[Dim] = [1] * (rank - first)
        for k, a in enumerate(axes):
            shape[a - first] = v.shape[k]
        return self.reshape(v, shape)

    def cast(self, v: Value, dtype: str) -> Value:
        known = self.array(v)
        if known is not None and known.dtype.kind != "f":
            return self.constant(known.astype(PLAIN[dtype]), dtype)
        return v if v.dtype == dtype else self.emit("Cast", v, type=(dtype, v.shape), to=dtype)

    def scalar(self, v: Value) -> Value:
        """A value of one element without axes."""
        return self.reshape(v, ())

    # --- in the end

    def live(self, results: Iterable[str]) -> tuple[list[Made], set[str]]:
        """The nodes that results depend on, in order, and all names that are read."""
        read = set(results)
        kept: list[Made] = []
        for made in reversed(self.nodes):
            if read.intersection(made.results):
                kept.append(made)
                read |= {v.name for v in made.args}
                for body in made.bodies:
                    read |= body.live(v.name for v in body.results)[1]
        return kept[::-1], read

    def renamed(self, old: str, new: str) -> None:
        """Call a result of a node otherwise."""
        swap = {old: new}

        def value(v: Value) -> Value:
            return replace(v, name=swap.get(v.name, v.name))

        for k, made in enumerate(self.nodes):
            for body in made.bodies:
                body.renamed(old, new)
            self.nodes[k] = replace(
                made,
                args=tuple(map(value, made.args)),
                results=tuple(swap.get(r, r) for r in made.results),
            )


@dataclass(slots=True)
class Body(Scope):
    """The body of a loop: what it is given each turn, and what it gives."""

    given: list[Value] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)

    def renamed(self, old: str, new: str) -> None:
        Scope.renamed(self, old, new)
        self.results = [replace(v, name=new if v.name == old else v.name) for v in self.results]


def _hashable(x: Any) -> Any:
    return tuple(x) if isinstance(x, list) else x


def _inserted(old: Sequence[Dim], new: Sequence[Dim]) -> list[int] | None:
    """The axes of size 1 that `new` has more than `old`; None where that is not all."""
    axes: list[int] = []
    k = 0
    for i, n in enumerate(new):
        if k < len(old) and n == old[k] and not (n == 1 and len(new) - i > len(old) - k):
            k += 1
        elif n == 1:
            axes.append(i)
        else:
            return None
    return axes if k == len(old) else None


def elements(shape: Iterable[Dim]) -> Dim:
    """How many elements a shape has."""
    return prod(shape, start=1)


def onnx() -> Any:
    """The library. Raises UnsupportedError (E0503) where it is not installed."""
    return optional(*NEED)
