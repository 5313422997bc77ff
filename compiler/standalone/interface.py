"""The functions by which a C program calls a network: their parameters, and where an entry finds its slots among them.

In: a manifest and the entries on their way to machine code. Out: an `Interface`, from which the header and the code
behind it are written. A function takes what it reads or changes (prepared weights, weights, a state), a number for each
size, the arrays of the entry, and scratch memory. Nothing depends on the target but what is prepared and how much
scratch is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Union

from ...dsl.errors import UnsupportedError, error
from ..manifest import GuardSpec, Manifest, Port, Variable
from ..types.sizes import Dim, Size, substitute, symbols
from . import structs
from .structs import Struct, free

if TYPE_CHECKING:
    from ..pipeline import Stages

C = {"f32": "float", "f64": "double", "i32": "int32_t", "i64": "int64_t", "u64": "uint64_t", "bool": "uint8_t"}
MOST = (1 << 31) - 1  # of a size
_BYTES = 1 << 62  # that are addressed, at most
_BY = re.compile(r" by `(\w+)`")
_NUMBERS = {path: name for name, path in structs.PROGRESS.items()}  # passed by value where there is no state
OWN = ("init", "predict", "train", "evaluate")  # the entries of a model; all others are exports
METRICS = ("train", "evaluate")
FAULTS = {  # of the caller, and what they mean: codes -1, -2, ..
    "SIZE": "a size is too large, or one that the network cannot have",
    "SCRATCH": "the scratch memory is too small",
    "LAYOUT": "the state is of another network, or of another version of it",
    "CPU": "this processor lacks instructions that the code is made of",
    "NAN": "a loss or a metric is not finite any more",
    "ROWS": "the function that gives the examples did not",
}
# what else has a name of its own behind the prefix, in capitals, as macros have it
_NAMES = tuple("CHECK MESSAGE PREPARE ORDER EPOCH WEIGHTS STATE PREPARED METRICS TRAINED ROWS LAYOUT H".split())


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    declared: str  # in C, with its name
    type: str  # in LLVM IR; "size" is as wide as a pointer
    port: Port | None = None  # of the entry


@dataclass(frozen=True, slots=True)
class Argument:
    """A slot that is what the caller passed."""

    parameter: str


@dataclass(frozen=True, slots=True)
class Passed:
    """A number that the caller passed by value."""

    parameter: str
    type: str


@dataclass(frozen=True, slots=True)
class Member:
    """Some bytes behind the beginning of a struct that the caller passed."""

    parameter: str
    offset: int


@dataclass(frozen=True, slots=True)
class Own:
    """So many bytes that the caller does not see; 0 for a slot that is not looked at."""

    nbytes: int


Source = Union[Argument, Passed, Member, Own]


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the interface around an entry."""

    name: str
    entry: str
    parameters: tuple[Parameter, ...]
    sizes: tuple[tuple[str, str], ...]  # of the entry, and the parameters that give them
    slots: tuple[Source, ...]
    arena: Dim
    most: Mapping[str, int]  # sizes of what runs at a time, at most
    limit: int  # of each size
    formulas: tuple[Dim, ...]  # numbers of bytes that several sizes decide
    guards: tuple[GuardSpec, ...]
    codes: tuple[int, ...]  # of the interface, for check 1, 2, ..
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    copies: tuple[tuple[Member, Member | Passed, int], ...] = ()  # bytes into a struct, first
    begins: bool = False  # fills a state anew


@dataclass(frozen=True, slots=True)
class Interface:
    """`checks` are (name, message) of the codes 1, 2, ..."""

    manifest: Manifest
    weights: Struct
    state: Struct
    prepared: Struct
    metrics: Struct
    calls: tuple[Call, ...]
    checks: tuple[tuple[str, str], ...]
    layout: int

    def without(self, name: str) -> Interface:
        """But for a function; what it alone calls is then not in the object."""
        return replace(self, calls=tuple(c for c in self.calls if c.name != name))

    @property
    def structs(self) -> tuple[Struct, ...]:
        """Those that have a name and are not empty, before those that hold them."""
        trains = any(c.begins for c in self.calls)
        found = (self.weights, *([self.state, self.metrics] if trains else []), self.prepared)
        return tuple(s for s in found if s.fields)


def _named(entry: str, taken: Iterable[str]) -> str:
    """What C calls the function of an entry. An export that would have the name of something of ours, or one that
    differs only in capitals, ends in `_`."""
    own = {*_NAMES, *(t.upper() for t in taken)}
    return entry if entry in OWN else free(f"{entry}_" if entry.upper() in own else entry, taken)


@dataclass(slots=True)
class _Build:
    manifest: Manifest
    weights: Struct
    state: Struct | None  # where it trains
    prepared: Struct
    metrics: Struct
    checks: dict[str, str] = field(default_factory=dict)  # message -> name
    functions: dict[str, str] = field(default_factory=dict)  # entry -> name

    def named(self, entry: str) -> str:
        self.functions[entry] = _named(entry, (*OWN, *self.functions.values()))
        return self.functions[entry]

    def codes(self, messages: Sequence[str]) -> tuple[int, ...]:
        for m in messages:
            if m not in self.checks:
                said = _BY.search(m)
                self.checks[m] = free((said[1] if said else "check").upper(), (*FAULTS, *self.checks.values()))
        return tuple(list(self.checks).index(m) + 1 for m in messages)


def interface(manifest: Manifest, made: Mapping[str, Stages], trains: bool) -> Interface:
    """Of some entries: `predict`; where it `trains`, `init`, `train` and `evaluate`, too; exports."""
    learned = structs.weights(manifest)
    state = structs.state(manifest, learned) if trains else None
    metrics, ready = Struct("metrics"), Struct("prepared")
    if trains:
        for p in made["train"].signature.outputs:
            if not _hidden(p, manifest):
                metrics.add(p.name, p.dtype, path=p.name)
    if "predict" in made and not made["predict"].signature.updates:
        stages = made["predict"]
        ready = structs.prepared(_read_by("predict", stages, manifest), stages.signature.prepared, manifest)
    b = _Build(manifest, learned, state, ready, metrics)
    calls: list[Call] = []
    for name, stages in made.items():
        if name == "predict" and ready.fields:
            calls.append(_prepare(b, stages))
        calls.append(_call(b, name, stages))
    whole = state or learned
    names = tuple((name, message) for message, name in b.checks.items())
    return Interface(
        manifest, learned, state or Struct("state"), ready, metrics, tuple(calls), names, structs.layout(whole)
    )


def _hidden(p: Port, manifest: Manifest) -> bool:
    return manifest.train is not None and any(m.hidden and m.name == p.name for m in manifest.train.metrics)


def _read_by(entry: str, stages: Stages, manifest: Manifest) -> list[Variable]:
    """The variables that an entry itself reads, and not only what prepares it."""
    names = {entry, f"{entry}.many"}
    entries = [e for e in stages.lowered.module.entries if e.name in names]
    read = {p.name for e in entries for c in e.calls for p in c.places if p.base == "slot"}
    return [v for v in manifest.variables if v.path in read]


def _call(b: _Build, name: str, stages: Stages) -> Call:
    s = stages.signature
    begins = name == "init"
    given: list[Parameter] = []
    slots: list[Source] = []
    holder, places = _holder(b, name, s.variables, s.updates, begins)
    if holder is not None:
        given.append(holder)
    taken = {p.name for p in given}
    sizes: list[tuple[str, str]] = []
    for size in s.sizes:
        sizes.append((size, free(size.lower(), taken)))
        taken.add(sizes[-1][1])
        given.append(Parameter(sizes[-1][1], f"size_t {sizes[-1][1]}", "size"))
    for p in s.inputs:
        parameter, source = _input(p, taken)
        taken.add(parameter.name)
        given.append(parameter)
        slots.append(source)
    if begins:
        seed = [p.name for p in given if p.name == "seed"]
        given += [Parameter(n, f"int64_t {n}", "i64") for n in ("seed", "steps") if n not in seed]
    for path in s.variables:
        if path in places and holder is not None:
            slots.append(Member(holder.name, places[path]))
        elif path in _NUMBERS and not (holder is not None and "$prepared" in holder.declared):
            number = Parameter(free(_NUMBERS[path], taken), f"int64_t {free(_NUMBERS[path], taken)}", "i64")
            taken.add(number.name)
            given.append(number)
            slots.append(Passed(number.name, "i64"))
        else:  # of no elements, or read by what prepares
            slots.append(Own(0))
    for port in s.prepared:
        assert holder is not None, "what is prepared is in a struct"
        slots.append(Member(holder.name, places[port.name]) if port.name in places else Own(0))
    if name in METRICS:
        at = {f.path: f.offset for f in b.metrics.fields}
        if at:
            given.append(Parameter(out := free("out", taken), f"$metrics *{out}", "ptr"))
            taken.add(out)
        for p in s.outputs:
            slots.append(Member(out, at[p.name]) if p.name in at else Own(structs.BYTES[p.dtype]))
    else:
        for p in s.outputs:
            parameter = _pointer(p, free(p.name, taken), "")
            taken.add(parameter.name)
            given.append(parameter)
            slots.append(Argument(parameter.name))
    given += _scratch(taken)
    most = dict([s.microbatch] if s.microbatch is not None else [])
    shapes = [p.type.nbytes for p in (*s.inputs, *s.outputs)]
    several = tuple(f for f in (s.arena, *shapes) if len(symbols(f)) > 1) if len(s.sizes) > 1 else ()
    return Call(
        b.named(name), name, tuple(given), tuple(sizes), tuple(slots), s.arena, most,
        MOST if several else _limit(s.sizes, [s.arena, *shapes]), several,
        s.guards, b.codes(s.checks), s.inputs, s.outputs, begins=begins,
    )  # fmt: skip


def _holder(
    b: _Build, name: str, variables: Sequence[str], updates: Sequence[str], begins: bool
) -> tuple[Parameter | None, Mapping[str, int]]:
    """The struct that a function takes, and where in it the variables and what is prepared lie."""
    if begins:
        assert b.state is not None
        return Parameter("s", "$state *s", "ptr"), _places(b.state)
    if not variables:
        return None, {}
    if name == "predict" and b.prepared.fields:
        return Parameter("p", "const $prepared *p", "ptr"), _places(b.prepared)
    const = "" if updates else "const "
    places = _places(b.weights)
    empty = {v.path for v in b.manifest.variables if 0 in v.shape}
    if all(path in places or path in empty or (path in _NUMBERS and path not in updates) for path in variables):
        return (Parameter("w", f"{const}$weights *w", "ptr") if places else None), places
    if b.state is None:
        what = f"`{name}` reads what only training has: it needs a build that trains"
        raise error("E0632", what, kind=UnsupportedError)
    return Parameter("s", f"{const}$state *s", "ptr"), _places(b.state)


def _places(struct: Struct) -> Mapping[str, int]:
    return {path: at for path, at, _ in struct.places()}


def _prepare(b: _Build, stages: Stages) -> Call:
    """The function that makes what predictions read of the weights: copies, and what the entry computes."""
    s, weights, ready = stages.signature, _places(b.weights), _places(b.prepared)
    computed = {p.name for p in s.prepared}
    numbers = [_NUMBERS[path] for path in s.variables if path in _NUMBERS]

    def read(path: str) -> Member | Passed:
        return Member("w", weights[path]) if path in weights else Passed(_NUMBERS[path], "i64")

    def slot(path: str) -> Source:
        return read(path) if path in weights or path in _NUMBERS else Own(0)

    copied = [(path, at, f) for path, at, f in b.prepared.places() if path not in computed]
    copies = tuple((Member("p", at), read(path), f.nbytes) for path, at, f in copied)
    slots: list[Source] = [slot(path) for path in s.variables]
    slots += [Member("p", ready[p.name]) if p.name in ready else Own(0) for p in s.prepared]
    given = [Parameter("w", "const $weights *w", "ptr")] if weights else []
    given += [Parameter(n, f"int64_t {n}", "i64") for n in numbers]
    given += [Parameter("p", "$prepared *p", "ptr"), *_scratch({"w", "p", *numbers})]
    entry = f"{s.name}.prepare" if s.prepared else ""
    return Call(
        "prepare",
        entry,
        tuple(given),
        (),
        tuple(slots),
        s.preparing,
        {},
        MOST,
        (),
        (),
        b.codes(s.checks),
        copies=copies,
    )


def _input(p: Port, taken: Iterable[str]) -> tuple[Parameter, Source]:
    name = free(p.name, taken)
    if p.shape:
        return _pointer(p, name, "const "), Argument(name)
    type_ = {"f32": "float", "f64": "double", "bool": "i8"}.get(p.dtype, p.dtype)
    return Parameter(name, f"{C[p.dtype]} {name}", type_, p), Passed(name, type_)


def _pointer(p: Port, name: str, const: str) -> Parameter:
    """`const float x[][64]` where all axes but the first are numbers, else a pointer to the first element."""
    inner = [str(n) for n in p.shape[1:]]
    if p.shape and all(n.isdigit() and n != "0" for n in inner):
        first = str(p.shape[0]) if isinstance(p.shape[0], int) and p.shape[0] else ""
        declared = f"{const}{C[p.dtype]} {name}[{first}]{''.join(f'[{n}]' for n in inner)}"
    else:
        declared = f"{const}{C[p.dtype]} *{name}"
    return Parameter(name, declared, "ptr", p)


def _scratch(taken: Iterable[str]) -> tuple[Parameter, Parameter]:
    scratch, nbytes = free("scratch", taken), free("bytes", taken)
    return Parameter(scratch, f"void *{scratch}", "ptr"), Parameter(nbytes, f"size_t {nbytes}", "size")


def _limit(sizes: Sequence[str], formulas: Sequence[Dim]) -> int:
    """The largest number that every size may be at once, so that all formulas fit in an address."""
    low, high = 0, MOST
    while low < high:
        tried = (low + high + 1) // 2
        values = [substitute(f, dict.fromkeys(sizes, tried)) for f in formulas]
        fits = all(isinstance(v, Size) or v < _BYTES for v in values)
        low, high = (tried, high) if fits else (low, tried - 1)
    return low
