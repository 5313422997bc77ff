"""Running one kernel of the loop IR as machine code."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnc.compiler.llvm import emit, support
from nnc.compiler.llvm.emulate import EMULATED
from nnc.compiler.loops.ir import Apply, Buffer, Call, Entry, For, Kernel, Load, Module, Place, Slot, Store, Var, i64
from nnc.compiler.native import loading
from nnc.compiler.native import objects as native
from nnc.compiler.native.target import MASKED
from nnc.compiler.types.sizes import symbol
from nnc.compiler.types.tensors import TensorType
from nnc.dsl.errors import UnsupportedError

NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.bool_}


def _module_of(kernel: Kernel) -> Module:
    slots = tuple(Slot(b.name, TensorType(b.dtype), "output" if b.mutable else "input") for b in kernel.buffers)
    call = Call(kernel.name, tuple(map(symbol, kernel.sizes)), tuple(Place("slot", b.name) for b in kernel.buffers))
    return Module((kernel,), (Entry("main", kernel.sizes, slots, 0, (call,)),))


class Compiled:
    """A kernel as a function of sizes and arrays, which it changes in place."""

    def __init__(self, kernel: Kernel, target: native.Target):
        self.ir = emit(_module_of(kernel), target, small=target.vector_bytes == 4)
        self.loaded = loading.Library(native.compile_object(self.ir, target))
        self.run = self.loaded.function("main")
        self.sizes = kernel.sizes

    def __call__(self, sizes: Mapping[str, int], arrays: Sequence[np.ndarray], pool: Any = None) -> int:
        numbers = (ctypes.c_int64 * max(1, len(self.sizes)))(*(sizes[s] for s in self.sizes))
        slots = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
        return self.run(ctypes.addressof(numbers), ctypes.addressof(slots), None, pool)


@pytest.fixture(scope="session")
def targets() -> dict[str, native.Target]:
    found = {"native": native.target("native")}
    for name in ("x86-64-v2", "x86-64-v3"):
        with contextlib.suppress(UnsupportedError):
            found[name] = native.target(name)
    found["lacking"] = replace(
        found["native"], lacks=frozenset(EMULATED) | MASKED
    )  # what it has is written out all the same
    found["serial"] = replace(found["native"], vector_bytes=4)  # no vectors: lanes take turns
    return found


@pytest.fixture(scope="session")
def module_of() -> Callable[[Kernel], Module]:
    """The module of one kernel: its entry `main` has the kernel's buffers as slots."""
    return _module_of


@pytest.fixture(scope="session")
def compiled(targets) -> Callable[..., Compiled]:
    def make(kernel: Kernel, target: str = "native") -> Compiled:
        if target not in targets:
            pytest.skip(f"this machine is no {target}")
        return Compiled(kernel, targets[target])

    return make


@pytest.fixture(scope="session")
def elementwise(compiled) -> Callable[..., Callable[..., np.ndarray]]:
    """A scalar function of the loop IR over arrays: `elementwise("exp", "f32", lanes=16)(x)`."""

    def make(
        fn: str, operands: str | tuple[str, ...], result: str | None = None, lanes: int = 16, target: str = "native"
    ) -> Callable[..., np.ndarray]:
        dtypes = (operands,) if isinstance(operands, str) else operands
        result = result or dtypes[0]
        j = Var("j")
        inputs = tuple(Buffer(f"x{k}", d) for k, d in enumerate(dtypes))
        value = Apply(fn, tuple(Load(b.name, j, b.dtype) for b in inputs), result)
        loop = For("j", i64(0), Var("n"), (Store("y", j, value),), lanes=lanes)
        kernel = compiled(Kernel(fn, ("n",), (*inputs, Buffer("y", result, True)), (loop,)), target)

        def call(*arrays: np.ndarray) -> np.ndarray:
            arrays = tuple(np.ascontiguousarray(a, NUMPY[d]) for a, d in zip(arrays, dtypes, strict=True))
            y = np.empty(arrays[0].shape, NUMPY[result])
            assert kernel({"n": y.size}, (*arrays, y)) == 0
            return y

        return call

    return make


@pytest.fixture(scope="session")
def services(targets) -> loading.Support:
    """The thread pool and the training loop."""
    return loading.Support(native.compile_object(support(targets["native"]), targets["native"]))
