"""Compiled code, run on buffers of one's own.

In: a compiled entry, arrays for its inputs and variables. Out: its outputs and the new values of its variables. Buffers
lie in ordinary memory or, `guarded`, each alone at the end or at the start of pages that lie between two that may not
be touched, so that the first access outside ends the process.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from nnc.compiler.graph.interpret import bind_sizes, whole
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.manifest import Port
from nnc.compiler.session import Native
from nnc.dsl.errors import ArgumentError, error

Arrays = dict[str, np.ndarray]
PAGE = mmap.PAGESIZE
PROT_NONE = 0
ALIGNMENT = 64  # of the arena
THREADS = 2  # of a pool
UNWRITTEN = 0xFF  # NaN everywhere: nothing may be read that was not written


@dataclass
class Memory:
    """Where buffers come from."""

    kept: list[object] = field(default_factory=list)

    def buffer(self, nbytes: int, alignment: int) -> np.ndarray:
        """Bytes at an address that is a multiple of `alignment`."""
        space = np.full(nbytes + alignment, UNWRITTEN, np.uint8)
        self.kept.append(space)
        start = -space.ctypes.data % alignment
        return space[start : start + nbytes]


@dataclass
class Guarded(Memory):
    """Each buffer between two pages that may not be touched, as near as its alignment allows to the upper one, or
    right above the lower one."""

    at_end: bool = True

    def buffer(self, nbytes: int, alignment: int) -> np.ndarray:
        inner = -(-max(nbytes, 1) // PAGE) * PAGE
        pages = mmap.mmap(-1, inner + 2 * PAGE)
        space = np.frombuffer(pages, np.uint8)
        self.kept.append((pages, space))
        space[PAGE : PAGE + inner] = UNWRITTEN
        for page in (0, PAGE + inner):
            if _protect(space.ctypes.data + page, PROT_NONE):
                raise OSError("mprotect failed")
        start = PAGE + (inner - nbytes) // alignment * alignment if self.at_end else PAGE
        return space[start : start + nbytes]


def _protect(address: int, protection: int) -> int:
    return ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), protection)


def call(
    native: Native,
    inputs: Mapping[str, np.ndarray],
    variables: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    pool: object = None,
    memory: Callable[[], Memory] = Memory,
) -> tuple[Arrays, Arrays]:
    """Outputs by name, new values of variables by path. Raises `ArgumentError` where a check of the code fails."""
    s, place = native.signature, memory()
    bound = bind_sizes([(p.name, p.type, inputs[p.name].shape) for p in s.inputs], sizes)

    def placed(array: np.ndarray) -> np.ndarray:
        space = place.buffer(array.nbytes, array.itemsize).view(array.dtype).reshape(array.shape)
        space[...] = array
        return space

    def unwritten(port: Port) -> np.ndarray:
        dtype = np.dtype(NUMPY[port.dtype])
        shape = [whole(n, bound) for n in port.shape]
        return place.buffer(int(np.prod(shape)) * dtype.itemsize, dtype.itemsize).view(dtype).reshape(shape)

    given = [placed(inputs[p.name]) for p in s.inputs]
    stored = {path: placed(variables[path]) for path in s.variables}
    prepared = [unwritten(p) for p in s.prepared]
    outputs = {p.name: unwritten(p) for p in s.outputs}
    buffers = [*given, *stored.values(), *prepared, *outputs.values()]
    numbers = placed(np.array([bound[n] for n in s.sizes] or [0], np.int64))
    slots = placed(np.array([b.ctypes.data for b in buffers] or [0], np.int64))
    if native.prepare is not None:
        arena = place.buffer(s.preparing, ALIGNMENT)
        native.prepare(None, slots[len(given) :].ctypes.data, arena.ctypes.data, pool)
    arena = place.buffer(whole(s.scratch(bound, THREADS if pool is not None else 1), bound), ALIGNMENT)
    status = native.run(numbers.ctypes.data, slots.ctypes.data, arena.ctypes.data, pool)
    if status:
        raise error("E0607", s.checks[status - 1], kind=ArgumentError)
    return {k: v.copy() for k, v in outputs.items()}, {k: v.copy() for k, v in stored.items()}
