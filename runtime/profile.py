"""Where the time of an entry goes: each of its kernels timed alone, beside what the machine could do at best.

In: a network, the name of an entry, arguments. Out: a `Profile`, a row for each kernel in the order of the run. All are
run in turns on the same memory, so what one leaves in the cache the next one finds. Where the entry runs micro-batches,
so do they, one; the times are those of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import addressof, c_int64
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any

import numpy as np

from ..compiler.apart import apart
from ..compiler.native.machine import measured, roofline
from ..compiler.session import Session
from .call.arrays import address_of, bind
from .network import Network

LEAST_SECONDS = 0.3  # of all rounds
ROUNDS = (5, 200)  # at least, at most


@dataclass(frozen=True, slots=True)
class Timed:
    """One kernel: `seconds` of a run, the median; `bound` the least that the roofline says it takes."""

    name: str
    place: str  # where in the program it is from: file:line
    text: str  # and what stands there
    seconds: float
    operations: int
    nbytes: int
    bound: float
    parallel: bool


@dataclass(frozen=True, slots=True)
class Profile:
    """Of one entry: `seconds` is what a call of all of it takes in native code, `machine` what was measured of it."""

    entry: str
    sizes: Mapping[str, int]
    threads: int
    seconds: float
    kernels: tuple[Timed, ...]
    machine: Mapping[str, Any]


def profile(net: Network, entry: str, arguments: list[Any], machine: Mapping[str, Any] | None = None) -> Profile:
    """Time each kernel of an entry for these arguments. What the entry writes is written many times. Raises
    `ArgumentError` and its kinds as a call would, E0607 where a check fails. `machine` is what `measured` gives."""
    assert isinstance(net.session, Session)
    call = net.entry(entry)
    arrays, sizes = bind(entry, call.wants, arguments)
    sized, slots = call.sized(sizes), call.slots_copy()
    outputs = [np.empty(shape, dtype) for _, shape, dtype in sized.outputs]
    for k, array in enumerate(arrays):
        slots[k] = address_of(array)
    for (k, _, _), array in zip(sized.outputs, outputs, strict=True):
        slots[k] = address_of(array)
    known = {name: int(sized.sizes[k]) for k, name in enumerate(call.signature.sizes)}
    part = call.signature.at_once(known)
    parts = max((known[name] / n for name, n in part.items() if n), default=1.0)  # 1 unless there are micro-batches
    numbers = (c_int64 * max(1, len(part)))(*part.values())
    steps = apart(net.session, entry, part)
    spent: list[list[int]] = [[] for _ in steps]
    whole: list[int] = []
    with net.workspace.lock:
        if status := call.launch(sized, addressof(slots)):  # once, for what it says and for a warm cache
            call.failed(status, arrays)
        arena, pool = net.workspace.arena(sized.arena), net.workspace.pool
        at = addressof(numbers), addressof(slots), arena, pool
        begun = perf_counter_ns()
        while len(whole) < ROUNDS[0] or (len(whole) < ROUNDS[1] and perf_counter_ns() - begun < LEAST_SECONDS * 1e9):
            for step, times in zip(steps, spent, strict=True):
                start = perf_counter_ns()
                step.run(*at)
                times.append(perf_counter_ns() - start)
            start = perf_counter_ns()
            call.launch(sized, addressof(slots))
            whole.append(perf_counter_ns() - start)
    machine = machine or measured(net.threads)
    rows = []
    for step, times in zip(steps, spent, strict=True):
        flops, size = step.operations(known), step.nbytes(known)
        place = f"{Path(step.span.source.name).name}:{step.span.position[0]}" if step.span is not None else ""
        text = " ".join(step.span.text.split()) if step.span is not None else ""
        bound = roofline(flops, size, machine)
        rows.append(Timed(step.name, place, text, parts * median(times) / 1e9, flops, size, bound, step.parallel))
    return Profile(entry, known, net.threads, median(whole) / 1e9, tuple(rows), machine)
