"""What the machine can do at best: multiply-adds a second, and bytes read a second from a buffer of each size.

Both are loops of LLVM IR at the width of its vectors, run on each of the threads at once. What a kernel takes has two
lower bounds of it, the roofline: its operations at that speed, and its bytes at the speed with which so many are read.

Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures" (2009).
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from . import objects
from .loading import Library
from .target import Target

SUMS = 12  # in flight: more than a multiply-add takes cycles, fewer than there are registers
SIZES = [1 << k for k in range(14, 29)]
CHECKS, SECONDS = 8, 0.005


def _ir(lanes: int) -> str:
    """`multiply(result, turns)` and `read(x, count, turns)`; what is computed is stored, so that it is computed."""
    vector, each = f"<{lanes} x float>", range(SUMS)
    half = f"<{', '.join(['float 0.5'] * lanes)}>"
    fma = f"@llvm.fma.v{lanes}f32"
    lines = [f"declare {vector} {fma}({vector}, {vector}, {vector})"]
    lines += ["define void @multiply(ptr %y, i64 %turns) {", "entry:", "  br label %loop", "loop:"]
    lines += ["  %i = phi i64 [ 0, %entry ], [ %next, %loop ]"]
    lines += [f"  %a{k} = phi {vector} [ zeroinitializer, %entry ], [ %b{k}, %loop ]" for k in each]
    lines += [f"  %b{k} = call {vector} {fma}({vector} %a{k}, {vector} {half}, {vector} {half})" for k in each]
    lines += ["  %next = add i64 %i, 1", "  %more = icmp ult i64 %next, %turns"]
    lines += ["  br i1 %more, label %loop, label %done", "done:"]
    for k in each:
        lines += [f"  %p{k} = getelementptr {vector}, ptr %y, i64 {k}", f"  store {vector} %b{k}, ptr %p{k}, align 4"]
    lines += ["  ret void", "}"]
    lines += ["define void @read(ptr %x, i64 %count, i64 %turns) {", "entry:", "  br label %turn", "turn:"]
    lines += ["  %t = phi i64 [ 0, %entry ], [ %t1, %end ]"]
    lines += [f"  %s{k} = phi {vector} [ zeroinitializer, %entry ], [ %b{k}, %end ]" for k in each]
    lines += ["  br label %loop", "loop:", "  %i = phi i64 [ 0, %turn ], [ %next, %loop ]"]
    lines += [f"  %a{k} = phi {vector} [ %s{k}, %turn ], [ %b{k}, %loop ]" for k in each]
    for k in each:
        lines += [f"  %i{k} = add i64 %i, {k * lanes}", f"  %p{k} = getelementptr float, ptr %x, i64 %i{k}"]
        lines += [f"  %x{k} = load {vector}, ptr %p{k}, align 4", f"  %b{k} = fadd {vector} %a{k}, %x{k}"]
    lines += [f"  %next = add i64 %i, {SUMS * lanes}", "  %more = icmp ult i64 %next, %count"]
    lines += ["  br i1 %more, label %loop, label %end", "end:", "  %t1 = add i64 %t, 1"]
    lines += ["  %again = icmp ult i64 %t1, %turns", "  br i1 %again, label %turn, label %done", "done:"]
    for k in each:
        lines += [f"  %q{k} = getelementptr {vector}, ptr %x, i64 {k}", f"  store {vector} %b{k}, ptr %q{k}, align 4"]
    return "\n".join([*lines, "  ret void", "}"])


def _rate(f: Callable[[int], object], work: float, threads: int) -> float:
    """The most of `work` a second that `f(turns)` does, `work` in a turn and thread, in all threads at the same time.

    Each counts the time that it has a processor, so what else runs here does not make the machine look slower.
    """

    def spent(turns: int) -> float:
        begun = time.thread_time()
        f(turns)
        return time.thread_time() - begun

    turns = 1
    while spent(turns) < SECONDS:
        turns *= 2
    with ThreadPoolExecutor(threads) as pool:
        return max(sum(work * turns / s for s in pool.map(spent, [turns] * threads)) for _ in range(CHECKS))


def measured(threads: int) -> dict[str, Any]:
    """{"flops": a second, "bandwidth": {bytes: bytes a second}}."""
    target: Target = objects.target("native")
    lanes = target.vector_bytes // 4
    library = Library(objects.compile_object(_ir(lanes), target))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    multiply = ctypes.CFUNCTYPE(None, pointer, number)(library.address("multiply"))
    read = ctypes.CFUNCTYPE(None, pointer, number, number)(library.address("read"))
    block = SUMS * lanes
    own = threading.local()

    def buffer(elements: int) -> int:
        if getattr(own, "x", np.empty(0)).size != elements:
            own.x = np.ones(elements, np.float32)  # written, so that it is not one page many times
        address: int = own.x.ctypes.data
        return address

    def multiplied(turns: int) -> None:
        multiply(buffer(block), 1000 * turns)

    def summed(count: int, turns: int) -> None:
        read(buffer(count), count, turns)

    flops = _rate(multiplied, 2000 * block, threads)
    bandwidth = {}
    for size in SIZES:
        count = max(1, size // threads // 4 // block) * block
        bandwidth[size] = _rate(partial(summed, count), 4 * count, threads)
    return {"flops": flops, "bandwidth": bandwidth}


def roofline(flops: float, size: float, machine: Mapping[str, Any]) -> float:
    """The least time in seconds for so many operations on so many bytes."""
    bandwidth = {int(s): float(rate) for s, rate in machine["bandwidth"].items()}
    fits = min((s for s in bandwidth if s >= size), default=max(bandwidth))
    return max(flops / float(machine["flops"]), size / bandwidth[fits])
