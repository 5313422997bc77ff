"""The loop IR: loops, buffers and scalar expressions, as data. Between the graph and LLVM.

    module   ::= constant* kernel* entry*
    constant ::= constant NAME : DTYPE = (value, ...)
    kernel   ::= kernel NAME (size, ...) (buffer, ...) { stmt* }
    buffer   ::= [mut] NAME : DTYPE                       a pointer argument; only element alignment is assumed
    stmt     ::= let NAME = expr                          bound until the enclosing body ends
               | NAME[expr] = expr                        store
               | NAME[expr] [n] fold= expr                reduce, fold one of sum prod max min
               | register NAME : DTYPE[n]                 n elements that live in registers, n constant, uninitialised
               | for NAME in expr..expr [step n] [vector n [bound expr]] [parallel [if expr] [from r]] [unroll n] { .. }
               | if expr { stmt* }                        the condition is uniform (the same in all lanes)
               | check expr else CODE                     when false in any lane that is on, the entry returns CODE
               | prefetch [level] NAME[expr]              soon read or written there, in lanes at the first: a hint
    expr     ::= constant | NAME | NAME[expr] | fn(expr, ...)
    entry    ::= entry NAME (size, ...) (slot, ...) [many NAME from NAME n] [microbatches NAME n step n]
                       [marks (n, ...)] arena SIZE { step* }
    step     ::= NAME (size, ...) (place, ...)            a call of a kernel
               | for NAME in 0..SIZE [reverse] [parallel] [until place] [share NAME, NAME of SIZE by n] { step* }
    place    ::= slot NAME [+ SIZE] | arena + SIZE | constant NAME [+ SIZE]

The functions are those of `scalar`; a result has the dtype of the operands unless their paragraph says otherwise.

Every index and size is an `i64`; buffers are flat and indexed in elements. A kernel knows only its arguments, so equal
kernels are one kernel and a kernel can be tested alone.

**Vector loops.** `for j in 0..n vector L` means: iterations run L at a time in lanes; the last, incomplete group is
masked: masked lanes load 0, store nothing and do not reduce. With `bound e` lanes where `j >= e` are masked as well.
Inside, an expression that depends on `j` is a vector, any other stays scalar and is broadcast where it meets a vector.
A load whose index is affine in `j` with coefficient 1 is one vector load, coefficient 0 a scalar load, anything else a
gather (or L scalar loads). `a[e] fold= x` where `e` does not depend on `j` keeps L partial results, one per lane, that
begin at the fold's identity; after the loop the lanes are combined by halving (lane i with lane i + L/2, and so on)
and the result is folded into `a[e]`. So the bits depend on L, which the schedule writes, and never on the target.
`a[e] n fold= x` stops when n lanes are left, and folds them into the n elements of the register `a` from `e` on.

**Registers.** Indices of register buffers are constant once unrolled loops are unrolled; inside a vector loop they are
affine with coefficient 1 and `start` a multiple of L. Whoever makes them rounds their length up to whole vectors. A
store in lanes leaves the lanes that are masked undefined.

**Unrolling.** `unroll n` puts n copies of the body in one iteration with a remainder loop; `unroll 0` means completely
(the trip count is constant and at most `MAX_UNROLL`), then the loop variable is a constant in each copy. In lanes the
copies go abreast where that is the same: each statement for all of them before the next one.

**Steps.** The sizes of calls and the offsets of places may speak of the indices of the loops around them. A loop with
`until` ends after the turn that leaves a bool that is true in that place. Turns of a `parallel` one are independent. Of
`share b, c of N by n` each thread takes a part of 0..N, c long from b on, a multiple of n, and all turns for that.

**Parallel.** A parallel loop is in no lanes and reads no registers from outside of it; iterations are independent.
Threads take contiguous static ranges, where the condition holds if there is one. A parallel loop in another is for one
thread wherever the outer one is for several. Nothing in the result depends on how many there are. `from r` makes r the
first turn of such a range, of all turns where one thread does them: turns with the same r are not at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Union

from ...dsl.record import dataclass, field
from ..scalar import FUNCTIONS
from ..types.sizes import Dim, Quotient, Size, Symbol
from ..types.tensors import TensorType

MAX_UNROLL = 64

FOLDS: Mapping[str, str] = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum"}


def identity(fold: str, dtype: str) -> int | float | bool:
    """The value a fold begins with, and that changes nothing: x + (-0) is x for every x, x + 0 is not for -0."""
    unit = FUNCTIONS[FOLDS[fold]].identity
    assert unit is not None
    return unit(dtype)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Const:
    value: int | float | bool
    dtype: str


@dataclass(frozen=True, slots=True)
class Var:
    """A loop variable or size (i64), or a name bound by `let`."""

    name: str
    dtype: str = "i64"


@dataclass(frozen=True, slots=True)
class Load:
    buffer: str
    index: Expr
    dtype: str


@dataclass(frozen=True, slots=True)
class Apply:
    fn: str
    args: tuple[Expr, ...]
    dtype: str


Expr = Union[Const, Var, Load, Apply]


@dataclass(frozen=True, slots=True)
class Let:
    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Store:
    buffer: str
    index: Expr
    value: Expr


@dataclass(frozen=True, slots=True)
class Reduce:
    """`buffer[index] into fold= value`"""

    buffer: str
    index: Expr
    fold: str
    value: Expr
    into: int = 1  # elements


@dataclass(frozen=True, slots=True)
class Register:
    name: str
    dtype: str
    length: int


@dataclass(frozen=True, slots=True)
class For:
    var: str
    start: Expr
    stop: Expr
    body: tuple[Stmt, ...]
    step: int = 1
    lanes: int = 1  # more than 1: a vector loop
    bound: Expr | None = None
    unroll: int = 1
    parallel: bool = False
    when: Expr | None = None  # a parallel loop: where it is worth while
    first: str = ""  # what the first turn of a thread's range is called


@dataclass(frozen=True, slots=True)
class If:
    condition: Expr
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Check:
    condition: Expr
    code: int


@dataclass(frozen=True, slots=True)
class Prefetch:
    buffer: str
    index: Expr
    level: int = 1  # of the cache it is to be in


Stmt = Union[Let, Store, Reduce, Register, For, If, Check, Prefetch]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A pointer argument of a kernel. Distinct buffers do not overlap unless both are the same place read and written
    at the same index (an in-place update)."""

    name: str
    dtype: str
    mutable: bool = False


@dataclass(frozen=True, slots=True)
class Kernel:
    name: str
    sizes: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    body: tuple[Stmt, ...]
    note: str = field(default="", compare=False)  # what it computes, for people
    alone: bool = False  # has no parallel loops, and nobody interrupts it (see `loops.alone`)
    origin: tuple[int, ...] = field(default=(), compare=False)  # see `Call`


@dataclass(frozen=True, slots=True)
class Place:
    """Where a kernel's buffer is: so many bytes behind the beginning of a slot of the entry, of the arena, or of a
    constant of the module."""

    base: str  # "slot", "arena", "constant"
    name: str = ""
    offset: Dim = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A kernel on buffers. It computes a `node` of the graph ("" where it copies); `origin` says of each statement of
    the kernel, in the order of `walk`, which node of that one's body it is for, by position (-1 where it is for all).
    Equal kernels are one, so it is the call that knows."""

    kernel: str
    sizes: tuple[Dim, ...]
    places: tuple[Place, ...]
    node: str = field(default="", compare=False)
    origin: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Share:
    """What the beginning of a share is called, and how much it is; of what, and what its beginning is a multiple of."""

    first: str
    count: str
    of: Dim
    grain: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps for each value of an index from 0 up to `count`, or down from there; or all of them for each share."""

    index: str
    count: Dim
    steps: tuple[Step, ...]
    reverse: bool = False
    until: Place | None = None
    parallel: bool = False
    share: Share | None = None
    node: str = field(default="", compare=False)  # of the graph, whose body the steps compute


Step = Union[Call, Loop]


@dataclass(frozen=True, slots=True)
class Slot:
    """A buffer the caller owns. Roles: input (read), param (read, written where the entry updates it), output, mark."""

    name: str
    type: TensorType
    role: str


@dataclass(frozen=True, slots=True)
class Many:
    """Another entry with the same slots that runs instead where a size is `least` or more."""

    entry: str
    size: str
    least: int


@dataclass(frozen=True, slots=True)
class Microbatches:
    """A batch of more than `length` examples, which `size` counts, is run so many at a time, on slots that are moved on
    where their first axis is that size; what is left at the end in multiples of `step` where not much is beyond them.
    Threads may run some at a time, each in an arena of its own."""

    size: str
    length: int
    step: int = 1

    def __post_init__(self) -> None:
        assert self.length % self.step == 0, "a whole micro-batch is one that comes next"

    def stride(self, slot: Slot) -> Dim:
        """Bytes by which a slot is moved on for an example."""
        t = slot.type
        return t.with_shape(t.shape[1:]).nbytes if t.shape and str(t.shape[0]) == self.size else 0

    def next(self, rest: int) -> int:
        """How many of the examples that are left come next."""
        taken = min(self.length, rest)
        over = taken % self.step
        return taken - over if taken > self.step and 2 * over <= self.step else taken


@dataclass(frozen=True, slots=True)
class Entry:
    """Compiled to `i32 NAME(const i64 *sizes, void *const *slots, void *arena, void *pool)`; 0 is success, a
    positive number the code of the check that failed, a negative one says that it was interrupted (`llvm.threads`).
    `pool` may be null: then everything runs on the caller's thread, to its end. After as many steps as `marks` say 1, 2
    .. is left in the last slot, of the role `mark`: another thread that reads it may read what these steps wrote."""

    name: str
    sizes: tuple[str, ...]
    slots: tuple[Slot, ...]
    arena: Dim  # bytes, 64-byte aligned base
    steps: tuple[Step, ...]
    many: Many | None = None
    microbatches: Microbatches | None = None
    marks: tuple[int, ...] = ()

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call, those in loops too."""
        return tuple(calls(self.steps))


@dataclass(frozen=True, slots=True)
class Constant:
    name: str
    dtype: str
    values: tuple[int | float | bool, ...]


@dataclass(frozen=True, slots=True)
class Module:
    kernels: tuple[Kernel, ...]
    entries: tuple[Entry, ...]
    constants: tuple[Constant, ...] = ()


# --- making expressions; constants fold, so that index arithmetic stays small -----------------------------------------


def i64(value: int) -> Const:
    return Const(value, "i64")


def _known(a: Expr, b: Expr) -> tuple[int, int] | None:
    """The two numbers, where both are known."""
    if type(a) is Const and type(b) is Const and a.dtype == b.dtype == "i64":
        return int(a.value), int(b.value)
    return None


def _is(e: Expr, value: int) -> bool:
    return type(e) is Const and e.value == value and e.dtype == "i64"


def add(a: Expr, b: Expr) -> Expr:
    if both := _known(a, b):
        return i64(both[0] + both[1])
    return b if _is(a, 0) else a if _is(b, 0) else Apply("add", (a, b), a.dtype)


def sub(a: Expr, b: Expr) -> Expr:
    if both := _known(a, b):
        return i64(both[0] - both[1])
    if _is(b, 0):
        return a
    return i64(0) if a.dtype == "i64" and a == b else Apply("sub", (a, b), a.dtype)


def mul(a: Expr, b: Expr) -> Expr:
    if both := _known(a, b):
        return i64(both[0] * both[1])
    if _is(a, 1) or _is(b, 1):
        return b if _is(a, 1) else a
    return i64(0) if _is(a, 0) or _is(b, 0) else Apply("mul", (a, b), a.dtype)


def floordiv(a: Expr, b: Expr) -> Expr:
    both = _known(a, b)
    if both and both[1]:
        return i64(both[0] // both[1])
    return a if _is(b, 1) else Apply("floordiv", (a, b), a.dtype)


def mod(a: Expr, b: Expr) -> Expr:
    both = _known(a, b)
    if both and both[1]:
        return i64(both[0] % both[1])
    return i64(0) if _is(b, 1) else Apply("mod", (a, b), a.dtype)


def size_expr(dim: Dim) -> Expr:
    """A size as an expression over the kernel's size arguments."""
    if isinstance(dim, int):
        return i64(dim)
    assert isinstance(dim, Size)
    total: Expr = i64(0)
    for monomial, c in dim.terms:
        term: Expr = i64(c)
        for atom in monomial:
            match atom:
                case Symbol(name):
                    factor: Expr = Var(name)
                case Quotient(op, top, bottom):
                    factor = (floordiv if op == "//" else mod)(size_expr(top), size_expr(bottom))
            term = mul(term, factor)
        total = add(total, term)
    return total


def calls(steps: tuple[Step, ...]) -> Iterator[Call]:
    """The calls among steps and in their loops."""
    for s in steps:
        yield from calls(s.steps) if isinstance(s, Loop) else (s,)


def loops(steps: tuple[Step, ...]) -> Iterator[Loop]:
    """The loops among steps, outer before inner."""
    for s in (s for s in steps if isinstance(s, Loop)):
        yield s
        yield from loops(s.steps)


def places(steps: tuple[Step, ...]) -> Iterator[Place]:
    """What the steps are given, and what their loops look at."""
    yield from (p for call in calls(steps) for p in call.places)
    yield from (loop.until for loop in loops(steps) if loop.until is not None)


def walk(stmts: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Every statement, outer before inner."""
    for s in stmts:
        yield s
        if isinstance(s, For | If):
            yield from walk(s.body)


def parts(e: Expr) -> list[Expr]:
    """The expression and everything in it."""
    found, stack = [], [e]
    while stack:
        e = stack.pop()
        found.append(e)
        if type(e) is Apply:
            stack += e.args
        elif type(e) is Load:
            stack.append(e.index)
    return found


def expressions(s: Stmt) -> tuple[Expr, ...]:
    """The expressions directly in a statement."""
    match s:
        case Let(_, e) | Prefetch(_, e):
            return (e,)
        case Store(_, index, value) | Reduce(_, index, _, value):
            return (index, value)
        case For(_, start, stop, bound=bound, when=when):
            return tuple(e for e in (start, stop, bound, when) if e is not None)
        case If(condition) | Check(condition):
            return (condition,)
    return ()
