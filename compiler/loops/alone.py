"""Modules of several entries as one that runs on its caller's thread alone, to its end.

In: modules as lowering makes them. Out: one module without parallel loops, whose kernels look at no word that would
interrupt them. Nothing in a result depends on how many threads there are, so no bit changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from .ir import Apply, Call, Constant, Entry, For, If, Kernel, Loop, Module, Place, Step, Stmt

Thing = TypeVar("Thing", Kernel, Constant)


def alone(modules: Iterable[Module]) -> Module:
    """Kernels and constants that are equal but for their names are one. Entries keep their names, which differ."""
    kernels: dict[Kernel, str] = {}
    constants: dict[Constant, str] = {}
    entries: list[Entry] = []
    for m in modules:
        kernel_names = {k.name: _shared(kernels, replace(_serial(k), name="", note=""), k.name) for k in m.kernels}
        constant_names = {c.name: _shared(constants, replace(c, name=""), c.name) for c in m.constants}
        entries += [replace(e, steps=_renamed(e.steps, kernel_names, constant_names)) for e in m.entries]
    return Module(
        tuple(replace(k, name=name) for k, name in kernels.items()),
        tuple(entries),
        tuple(replace(c, name=name) for c, name in constants.items()),
    )


def _shared(known: dict[Thing, str], thing: Thing, name: str) -> str:
    """The name of an equal thing; else its own, or one like it that is free."""
    if thing not in known:
        taken, free, k = set(known.values()), name, 1
        while free in taken:
            free, k = f"{name}.{k}", k + 1
        known[thing] = free
    return known[thing]


def _serial(kernel: Kernel) -> Kernel:
    return replace(kernel, body=_in_order(kernel.body), alone=True)


def _in_order(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    done: list[Stmt] = []
    for s in body:
        match s:
            case For():
                stop, bound = s.stop, s.bound
                if s.parallel and s.lanes == 1 and bound is not None:
                    stop, bound = Apply("minimum", (stop, bound), "i64"), None
                s = replace(s, stop=stop, bound=bound, body=_in_order(s.body), parallel=False, when=None)
            case If():
                s = replace(s, body=_in_order(s.body))
        done.append(s)
    return tuple(done)


def _renamed(steps: tuple[Step, ...], kernels: Mapping[str, str], constants: Mapping[str, str]) -> tuple[Step, ...]:
    def place(p: Place) -> Place:
        return replace(p, name=constants[p.name]) if p.base == "constant" else p

    done: list[Step] = []
    for s in steps:
        if isinstance(s, Loop):
            until = place(s.until) if s.until is not None else None
            done.append(replace(s, steps=_renamed(s.steps, kernels, constants), until=until))
        else:
            done.append(Call(kernels[s.kernel], s.sizes, tuple(map(place, s.places))))
    return tuple(done)
