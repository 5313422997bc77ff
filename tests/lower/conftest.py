"""Graphs as machine code, called on NumPy arrays; and random graphs."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnc.compiler.graph.nodes import Builder, Graph
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.llvm import emit
from nnc.compiler.llvm.support import support as support_module
from nnc.compiler.lowering.lower import Variant, lower
from nnc.compiler.lowering.memory import output_slot
from nnc.compiler.native import loading
from nnc.compiler.native import objects as native
from nnc.compiler.types.sizes import substitute, symbol
from nnc.compiler.types.tensors import TensorType

from ..graphs import einsum

Arrays = Mapping[str, Any]


class Compiled:
    """One graph as an entry. A call gives outputs by name and variables by path, as they are afterwards."""

    def __init__(self, graph: Graph, target: str = "native", threads: int = 1):
        inputs = {n.attrs["name"]: n.type for n in graph if n.op == "input"}
        variables = {n.attrs["path"]: n.type for n in graph if n.op == "param"}
        variables |= {path: graph[v].type for path, v in graph.updates if path not in variables}
        self.graph, self.threads = graph, threads
        serial = target == "serial"  # a processor without vectors, and small code
        self.target = replace(native.target(), vector_bytes=4) if serial else native.target(target)
        self.lowered = lower(Variant(graph), inputs, variables, self.target)
        text = emit(self.lowered.module, self.target, small=serial)
        self.loaded = loading.Library(native.compile_object(text, self.target))
        self.run = self.loaded.function(graph.name)

    def __call__(self, inputs: Arrays, params: Arrays | None = None, sizes: Mapping[str, int] | None = None,
                 pool: Any = None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:  # fmt: skip
        entry, sizes = self.lowered.entry, dict(sizes or {})
        arrays: dict[str, np.ndarray] = {}
        for slot in entry.slots:
            shape = tuple(int(substitute(n, sizes)) for n in slot.type.shape)
            given = (inputs if slot.role == "input" else params or {}).get(slot.name)
            empty = np.full(shape, 77).astype(NUMPY[slot.type.dtype])
            arrays[slot.name] = empty if given is None else np.array(given, NUMPY[slot.type.dtype], order="C")
            assert arrays[slot.name].shape == shape, slot.name
        size = int(substitute(entry.arena, sizes))
        arena = np.full(size + 192, 0xA5, np.uint8)  # what lies there before must not matter, nor may what lies behind
        first = -arena.ctypes.data % 64
        numbers = (ctypes.c_int64 * max(1, len(entry.sizes)))(*(sizes[s] for s in entry.sizes))
        pointers = (ctypes.c_void_p * max(1, len(arrays)))(*(a.ctypes.data for a in arrays.values()))
        self.arrays = arrays
        code = self.run(ctypes.addressof(numbers), ctypes.addressof(pointers), arena.ctypes.data + first, pool)
        assert (arena[:first] == 0xA5).all() and (arena[first + size :] == 0xA5).all(), "written outside the arena"
        if code:
            raise IndexError(self.lowered.checks[code - 1])
        outputs = {name: arrays[output_slot(name)] for name, _ in self.graph.outputs}
        return outputs, {s.name: arrays[s.name] for s in entry.slots if s.role == "param"}


@pytest.fixture
def compiled() -> Callable[..., Compiled]:
    return Compiled


# --- random graphs ---------------------------------------------------------------------------------------------------

B = symbol("B")
DIMS = (B, 3, 5, 17, 1, 4)
KINDS = ("unary", "unary", "binary", "binary", "binary", "reduce", "reduce", "softmax", "transpose", "reshape", "slice",
         "pad", "concat", "product", "product", "argmax", "take", "flip", "running", "sorted")  # fmt: skip


class Grower:
    """Adds random nodes to a graph; values stay of moderate size."""

    def __init__(self, rng: Any, dtype: str):
        self.rng, self.dtype, self.b = rng, dtype, Builder("g", _ops())
        shapes = [self.shape() for _ in range(3)] + [(B, 5), (B, 17), (5,)]
        types = [TensorType(dtype, rng.choice(shapes)) for _ in range(5)]
        self.values = [self.b.emit("input", name=f"x{k}", type=t) for k, t in enumerate(types[:3])]
        self.params = [self.b.emit("param", path=f"p{k}", type=t) for k, t in enumerate(types[3:])]
        self.values += self.params

    def shape(self) -> tuple:
        return tuple(self.rng.choice(DIMS) for _ in range(self.rng.choice([0, 1, 2, 2, 2, 3])))

    def pick(self) -> str:
        return self.rng.choice(self.values[-6:] if self.rng.random() < 0.6 else self.values)

    def number(self, value: float, shape: tuple) -> str:
        c = self.b.emit("constant", values=(value,), type=TensorType(self.dtype))
        return self.b.emit("broadcast", c, shape=shape, axes=()) if shape else c

    def fitted(self, x: str, shape: tuple) -> str:
        """`x`, repeated or summed until it has a shape."""
        old = self.b.shape(x)
        if old == shape:
            return x
        for k in range(len(shape) + 1):
            if shape[k:] == old:
                return self.b.emit("broadcast", x, shape=shape, axes=tuple(range(k, len(shape))))
            if shape[: len(shape) - k] == old:
                return self.b.emit("broadcast", x, shape=shape, axes=tuple(range(len(old))))
        total = self.b.emit("reduce_sum", x, axes=tuple(range(len(old)))) if old else x
        total = self.b.emit("mul", total, self.number(0.1, ()))
        return self.b.emit("broadcast", total, shape=shape, axes=()) if shape else total

    def grow(self) -> None:
        b, rng, x = self.b, self.rng, self.pick()
        s = b.shape(x)
        kind = rng.choice(KINDS)
        if not s and kind not in ("unary", "binary"):
            return
        axis = rng.randrange(len(s)) if s else 0
        kept = tuple(k for k in range(len(s)) if k != axis)
        match kind:
            case "unary":
                self.values.append(b.emit(rng.choice(["tanh", "neg", "logistic", "abs", "sin"]), x))
            case "binary":
                y = self.fitted(self.pick(), s)
                self.values.append(b.emit(rng.choice(["add", "mul", "sub", "maximum"]), x, y))
            case "reduce":
                axes = tuple(sorted(rng.sample(range(len(s)), rng.randint(1, len(s)))))
                self.values.append(b.emit(rng.choice(["reduce_sum", "reduce_max"]), x, axes=axes))
            case "softmax":
                top = b.emit("broadcast", b.emit("reduce_max", x, axes=(axis,)), shape=s, axes=kept)
                e = b.emit("exp", b.emit("sub", x, top))
                total = b.emit("broadcast", b.emit("reduce_sum", e, axes=(axis,)), shape=s, axes=kept)
                self.values.append(b.emit("div", e, total))
            case "transpose":
                perm = list(range(len(s)))
                rng.shuffle(perm)
                self.values.append(b.emit("transpose", x, perm=tuple(perm)))
            case "reshape":
                total = b.type(x).size
                self.values.append(b.emit("reshape", x, shape=rng.choice([(total,), (1, *s), (*s, 1)])))
            case "slice" if isinstance(s[axis], int) and s[axis] > 1:
                starts = tuple(int(k == axis) for k in range(len(s)))
                steps = tuple(rng.choice([1, 2]) if k == axis else 1 for k in range(len(s)))
                self.values.append(b.emit("slice", x, starts=starts, stops=s, steps=steps))
            case "slice" if not isinstance(s[axis], int):
                steps = tuple(rng.choice([2, 3]) if k == axis else 1 for k in range(len(s)))
                self.values.append(b.emit("slice", x, starts=(0,) * len(s), stops=s, steps=steps))
            case "pad":
                low, high = (tuple(rng.randint(0, 2) for _ in s) for _ in range(2))
                self.values.append(b.emit("pad", x, low=low, high=high, value=0.5))
            case "concat":
                self.values.append(b.emit("concat", x, x, axis=axis))
            case "flip":
                self.values.append(b.emit("flip", x, axes=(axis,)))
            case "product" if len(s) == 2:
                y = rng.choice([v for v in self.values if len(b.shape(v)) == 2])
                u = b.shape(y)
                for spec, fits in (("ij,jk->ik", s[1] == u[0]), ("ij,kj->ik", s[1] == u[1]),
                                   ("ij,ik->jk", s[0] == u[0]), ("ji,kj->ki", s[0] == u[1])):  # fmt: skip
                    if fits:
                        self.values.append(b.emit("mul", z := einsum(b, spec, x, y), self.number(0.1, b.shape(z))))
                        break
            case "argmax":
                self.values.append(b.emit("cast", b.emit("argmax", x, axis=axis), dtype=self.dtype))
            case "running":
                y = b.emit("tanh", self.fitted(self.pick(), s))
                back = rng.random() < 0.5
                self.values.append(b.emit("recurrence", y, x, axis=axis, reverse=back))
            case "sorted":
                i = b.emit("argsort", x, descending=rng.random() < 0.5)
                self.values.append(b.emit("take_along", x, i))
            case "take":
                i = b.emit("cast", b.emit("argmax", x, axis=len(s) - 1), dtype="i64")
                self.values.append(b.emit("take_along", x, i))

    def graph(self, nodes: int) -> Graph:
        for _ in range(nodes):
            self.grow()
        outputs = [(f"o{k}", v) for k, v in enumerate(self.rng.sample(self.values, min(3, len(self.values))))]
        updates = []
        for k, p in enumerate(self.params):
            if self.rng.random() < 0.8:
                step = self.fitted(self.pick(), self.b.shape(p))
                step = self.b.emit("mul", step, self.number(0.1, self.b.shape(p)))
                updates.append((f"p{k}", self.b.emit("sub", p, step)))
        return self.b.finish(tuple(outputs), tuple(updates))


def _ops() -> Mapping[str, Any]:
    from nnc.compiler.graph.ops import OPS

    return OPS


@pytest.fixture
def random_graph() -> Callable[..., Graph]:
    """`random_graph(rng, dtype)`: between 3 and 22 operators deep."""
    return lambda rng, dtype: Grower(rng, dtype).graph(rng.randint(3, 22))


@pytest.fixture
def random_arrays() -> Callable[..., tuple[dict, dict]]:
    """`random_arrays(graph, sizes)`: inputs by name and variables by path."""

    def make(graph: Graph, sizes: Mapping[str, int]) -> tuple[dict, dict]:
        rng = np.random.default_rng(0)

        def array(t: TensorType) -> np.ndarray:
            shape = tuple(int(substitute(n, sizes)) for n in t.shape)
            return np.asarray(rng.standard_normal(shape), NUMPY[t.dtype])

        inputs = {n.attrs["name"]: array(n.type) for n in graph if n.op == "input"}
        params = {n.attrs["path"]: array(n.type) for n in graph if n.op == "param"}
        return inputs, params | {p: array(graph[v].type) for p, v in graph.updates if p not in params}

    return make


@pytest.fixture(scope="session")
def pool() -> Callable[[int], loading.Pool | None]:
    """Thread pools."""
    host = native.target("native")
    support = loading.Support(native.compile_object(support_module(host), host))
    return support.pool
