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
    kernels: dict[str, Kernel] = {}
    constants: dict[str, Constant] = {}
    entries: list[Entry] = []
    for m in modules:
        kernel_names = {k.name: _shared(kernels, _serial(k), k.name) for k in m.kernels}
        constant_names = {c.name: _shared(constants, c, c.name) for c in m.constants}
        entries += [replace(e, steps=_renamed(e.steps, kernel_names, constant_names)) for e in m.entries]
    return Module(tuple(kernels.values()), tuple(entries), tuple(constants.values()))


def _shared(known: dict[str, Thing], thing: Thing, name: str) -> str:
    """The name of an equal thing; else its own, or one like it that is free. Equal is what is written in the same way:
    0 and -0 are not."""
    key = repr(replace(thing, name=""))
    if key not in known:
        taken, free, k = {t.name for t in known.values()}, name, 1
        while free in taken:
            free, k = f"{name}.{k}", k + 1
        known[key] = replace(thing, name=free)
    return known[key].name


def _serial(kernel: Kernel) -> Kernel:
    return replace(kernel, body=_in_order(kernel.body), alone=True, note="")


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
            done.append(replace(s, steps=_renamed(s.steps, kernels, constants), until=until, parallel=False))
        else:
            done.append(Call(kernels[s.kernel], s.sizes, tuple(map(place, s.places))))
    return tuple(done)
