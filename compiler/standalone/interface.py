"""The functions by which a C program calls a network: their parameters, and where an entry finds its slots among them.

In: a manifest and the entries on their way to machine code. Out: an `Interface`, from which the header and the code
behind it are written. A function takes what it reads or changes (prepared weights, weights, a state), a number for each
size, the arrays of the entry, and scratch memory. Nothing depends on the target but what is prepared and how much
scratch is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Union

from ...dsl.errors import UnsupportedError, error
from ...dsl.record import dataclass, field, replace
from ..manifest import GuardSpec, Manifest, Port, Variable
from ..types.sizes import Dim, Size, substitute, symbols
from ..types.stacks import members
from . import structs
from .structs import Struct, free

if TYPE_CHECKING:
    from ..pipeline import Stages

C = {"f32": "float", "f64": "double", "i8": "int8_t", "i16": "int16_t", "i32": "int32_t", "i64": "int64_t",
     "u64": "uint64_t", "bool": "uint8_t"}  # fmt: skip
MOST = (1 << 31) - 1  # of a size
_BYTES = 1 << 62  # that are addressed, at most
_BY = re.compile(r" by `(\w+)`")
_NUMBERS = {path: name for name, path in structs.PROGRESS.items()}  # passed by value where there is no state
OWN = ("init", "predict", "train", "evaluate")  # the entries of a model; all others are exports
METRICS = ("train", "evaluate")
FAULTS = {  # of the caller, and what they mean: codes -1, -2, ..
    "SIZE": "a size is too large, or one that the network cannot have",
    "SCRATCH": "the scratch memory is too small",
    "LAYOUT": "the state, or the header, is of another network, or of another version of it",
    "CPU": "this processor lacks instructions that the code is made of",
    "NAN": "a loss or a metric is not finite any more",
    "ROWS": "the function that gives the examples did not",
}
OK, SIZE, SCRATCH, LAYOUT, CPU, NOT_FINITE, ROWS = 0, -1, -2, -3, -4, -5, -6
# what else has a name of its own behind the prefix, in capitals, as macros have it
_NAMES = tuple("CHECK MESSAGE PREPARE ORDER EPOCH WEIGHTS STATE PREPARED METRICS TRAINED ROWS LAYOUT HEADER H".split())


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    declared: str  # in C, with its name
    type: str  # in LLVM IR; "size" is as wide as a pointer
    port: Port | None = None  # of the entry

    @property
    def held(self) -> str:
        """The struct that it points to, without the prefix; "" where it is none."""
        return self.declared.partition("$")[2].partition(" ")[0]


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
    copies: tuple[tuple[Source, Source, int], ...] = ()  # bytes into a struct, first
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

    @property
    def header(self) -> int:
        """64 bits that say what a caller is told: structs, functions, and how much memory these want."""
        layouts = [structs.layout(s) for s in (self.weights, self.state, self.prepared, self.metrics)]
        calls = [(c.name, [p.declared for p in c.parameters], str(c.arena), dict(c.most)) for c in self.calls]
        return structs.digest(repr((layouts, calls)))

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
    slots = {p.name for e in entries for c in e.calls for p in c.places if p.base == "slot"}
    read = {path for slot in slots for path in members(slot)}
    return [v for v in manifest.laid if v.path in read]


class _Parameters:
    """Those of a function so far, each with a name of its own."""

    def __init__(self) -> None:
        self.given: list[Parameter] = []

    def add(self, wanted: str, declared: str, type_: str, port: Port | None = None) -> Parameter:
        """`declared` is C, with `{}` for the name."""
        name = free(wanted, {p.name for p in self.given})
        self.given.append(Parameter(name, declared.format(name), type_, port))
        return self.given[-1]


def _call(b: _Build, name: str, stages: Stages) -> Call:
    s, p = stages.signature, _Parameters()
    places = _holder(b, p, name, s.variables, s.updates)
    sizes = tuple((size, p.add(size.lower(), "size_t {}", "size").name) for size in s.sizes)
    slots = [_input(p, port) for port in s.inputs]
    begins = name == "init"
    for number in ("seed", "steps") if begins else ():
        if number not in {q.name for q in p.given}:
            p.add(number, "int64_t {}", "i64")
    slots += _variables(p, [*s.variables, *(port.name for port in s.prepared)], places)
    slots += _results(b, p, s.outputs, name in METRICS)
    p.add("scratch", "void *{}", "ptr")
    p.add("bytes", "size_t {}", "size")
    formulas = [s.arena, *(port.type.nbytes for port in (*s.inputs, *s.outputs))]
    several = tuple(f for f in formulas if len(symbols(f)) > 1)
    return Call(
        name=b.named(name),
        entry=name,
        parameters=tuple(p.given),
        sizes=sizes,
        slots=tuple(slots),
        arena=s.arena,
        most=dict([s.microbatch] if s.microbatch is not None else []),
        limit=MOST if several else _limit(s.sizes, formulas),
        formulas=several,
        guards=s.guards,
        codes=b.codes(s.checks),
        inputs=s.inputs,
        outputs=s.outputs,
        begins=begins,
    )


def _holder(
    b: _Build, p: _Parameters, name: str, variables: Sequence[str], updates: Sequence[str]
) -> Mapping[str, Member]:
    """Add the struct that a function takes; where in it the variables and what is prepared lie."""
    if not variables and name != "init":
        return {}
    const = "" if updates or name == "init" else "const "
    weights = structs.offsets(b.weights, b.manifest)
    empty = {v.path for v in b.manifest.variables if 0 in v.shape}
    empty |= {stack for stack in b.manifest.stacks if members(stack)[0] in empty}
    if name == "predict" and b.prepared.fields:
        return _held(b, p, "p", "const $prepared *{}", b.prepared)
    if name != "init" and all(v in weights or v in empty or (v in _NUMBERS and v not in updates) for v in variables):
        return _held(b, p, "w", f"{const}$weights *{{}}", b.weights) if weights else {}
    if b.state is None:
        what = f"`{name}` reads what only training has: it needs a build that trains"
        raise error("E0632", what, kind=UnsupportedError)
    return _held(b, p, "s", f"{const}$state *{{}}", b.state)


def _held(b: _Build, p: _Parameters, wanted: str, declared: str, struct: Struct) -> Mapping[str, Member]:
    name = p.add(wanted, declared, "ptr").name
    return {path: Member(name, at) for path, at in structs.offsets(struct, b.manifest).items()}


def _variables(p: _Parameters, paths: Iterable[str], places: Mapping[str, Member]) -> list[Source]:
    """Slots of what lies in the struct; a number of training that does not is a parameter."""
    slots: list[Source] = []
    prepared = any(q.held == "prepared" for q in p.given)
    for path in paths:
        if path in places:
            slots.append(places[path])
        elif path in _NUMBERS and not prepared:
            slots.append(Passed(p.add(_NUMBERS[path], "int64_t {}", "i64").name, "i64"))
        else:  # of no elements, or read by what prepares
            slots.append(Own(0))
    return slots


def _results(b: _Build, p: _Parameters, outputs: Iterable[Port], metrics: bool) -> list[Source]:
    """Slots of results: arrays of the caller, or a struct of metrics, of which some are not shown."""
    if not metrics:
        return [Argument(_array(p, port, "").name) for port in outputs]
    places = _held(b, p, "out", "$metrics *{}", b.metrics) if b.metrics.fields else {}
    return [places.get(port.name, Own(structs.BYTES[port.dtype])) for port in outputs]


def _prepare(b: _Build, stages: Stages) -> Call:
    """The function that makes what predictions read of the weights: copies, and what the entry computes."""
    s, p = stages.signature, _Parameters()
    weights = _held(b, p, "w", "const $weights *{}", b.weights) if b.weights.fields else {}
    read = dict(zip(s.variables, _variables(p, s.variables, weights), strict=True))
    ready = _held(b, p, "p", "$prepared *{}", b.prepared)
    p.add("scratch", "void *{}", "ptr")
    p.add("bytes", "size_t {}", "size")
    computed = {port.name for port in s.prepared}
    return Call(
        name="prepare",
        entry=f"{s.name}.prepare" if s.prepared else "",
        parameters=tuple(p.given),
        sizes=(),
        slots=(*read.values(), *(ready.get(port.name, Own(0)) for port in s.prepared)),
        arena=s.preparing,
        most={},
        limit=MOST,
        formulas=(),
        guards=(),
        codes=b.codes(s.checks),
        copies=tuple(
            (ready[path], weights[path] if path in weights else read[path], f.nbytes)
            for path, _, f in b.prepared.places()
            if path not in computed
        ),
    )


def _input(p: _Parameters, port: Port) -> Source:
    """The slot of an array, or of a number, which is passed by value."""
    if port.shape:
        return Argument(_array(p, port, "const ").name)
    type_ = {"f32": "float", "f64": "double", "bool": "i8"}.get(port.dtype, port.dtype)
    return Passed(p.add(port.name, f"{C[port.dtype]} {{}}", type_, port).name, type_)


def _array(p: _Parameters, port: Port, const: str) -> Parameter:
    """`const float x[][64]` where all axes but the first are numbers, else a pointer to the first element."""
    first, inner = port.shape[:1], [str(n) for n in port.shape[1:]]
    declared = f"{const}{C[port.dtype]} *{{}}"
    if first and all(n.isdigit() and n != "0" for n in inner):
        rows = str(first[0]) if isinstance(first[0], int) and first[0] else ""
        declared = f"{const}{C[port.dtype]} {{}}[{rows}]{''.join(f'[{n}]' for n in inner)}"
    return p.add(port.name, declared, "ptr", port)


def _limit(sizes: Sequence[str], formulas: Sequence[Dim]) -> int:
    """The largest number that every size may be at once, so that all formulas fit in an address."""
    low, high = 0, MOST
    while low < high:
        tried = (low + high + 1) // 2
        values = [substitute(f, dict.fromkeys(sizes, tried)) for f in formulas]
        fits = all(isinstance(v, Size) or v < _BYTES for v in values)
        low, high = (tried, high) if fits else (low, tried - 1)
    return low
