"""Kernels that differ in a few numbers are one kernel, which is given these.

In: a module. Out: the same with fewer kernels. Networks repeat their layers at several sizes, and what LLVM does takes
half of the time of a compilation. A number may be given where it costs nothing to know it only at run time: how often a
loop turns that is not unrolled, by what its variable is multiplied, what is added to an index. What makes the code what
it is stays in it: tiles, lanes, steps, and what divides in a loop. So no bit changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from itertools import count as naturals
from itertools import islice

from ...dsl.record import dataclass, replace
from ..loops import ir as L
from ..types.sizes import Dim

MOST = 16  # numbers that a kernel is given
STEM = "n"  # of their names
NEVER_FEW = L.Const(-1, "i64")
_DIVIDES = ("floordiv", "mod")

Number = Callable[[L.Const], L.Expr]  # what stands in place of a number


def alike(module: L.Module) -> L.Module:
    """The module with one kernel for those that differ in numbers alone."""
    given: dict[str, tuple[str, tuple[int, ...]]] = {}  # by kernel the one in its place, and what that is given
    made: dict[str, L.Kernel] = {}
    for group in _groups(module):
        made |= _one(group, given)
    if not given:
        return module
    kept = [made.get(k.name, k) for k in module.kernels if k.name not in given or k.name in made]
    entries = [replace(e, steps=_steps(e.steps, given)) for e in module.entries]
    return replace(module, kernels=tuple(kept), entries=tuple(entries))


@dataclass(frozen=True, slots=True)
class _Form:
    """A kernel without the numbers that it may be given."""

    kernel: L.Kernel
    numbers: tuple[int, ...]


def _groups(module: L.Module) -> Iterable[list[_Form]]:
    """Kernels of one form. Those that differ at a glance are not looked at; nor are those one of which is given a place
    twice, unless all are."""
    places: dict[str, set[Hashable]] = {}
    for e in module.entries:
        for c in e.calls:
            places.setdefault(c.kernel, set()).add(_twice(c.places))
    glance: dict[Hashable, list[L.Kernel]] = {}
    for k in module.kernels:
        outside = tuple(type(s) for s in L.walk(k.body))
        glance.setdefault((k.sizes, k.buffers, frozenset(places.get(k.name, ())), outside), []).append(k)
    forms: dict[Hashable, list[_Form]] = {}
    for similar in glance.values():
        for k in similar if len(similar) > 1 else ():
            key, form = _form(k)
            forms.setdefault(key, []).append(form)
    return [group for group in forms.values() if len(group) > 1]


def _twice(places: Sequence[L.Place]) -> Hashable:
    first: dict[L.Place, int] = {}
    return tuple(first.setdefault(p, k) for k, p in enumerate(places))


def _form(kernel: L.Kernel) -> tuple[Hashable, _Form]:
    """What alike kernels have in common, and the kernel."""
    numbers: list[int] = []
    floats: list[str] = []  # 0.0 and -0.0 are equal

    def number(c: L.Const) -> L.Expr:
        numbers.append(int(c.value))
        return L.Var("")

    def other(c: L.Const) -> None:
        floats.append(repr(c.value))

    body = _Copy(kernel.sizes, number, other).body(kernel.body)
    return (kernel.sizes, kernel.buffers, kernel.alone, body, *floats), _Form(kernel, tuple(numbers))


def _one(group: list[_Form], given: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, L.Kernel]:
    """The first kernel of a group as the one of all, by its name; `given` has it for each."""
    columns = list(zip(*(f.numbers for f in group), strict=True))
    different = list(dict.fromkeys(c for c in columns if len({*c}) > 1))
    first = group[0].kernel
    if len(different) > MOST:
        return {}
    names = dict(zip(different, _free(first, len(different)), strict=True))
    left = iter(columns)

    def number(c: L.Const) -> L.Expr:
        name = names.get(next(left))
        return c if name is None else L.Var(name)

    body = _Copy(first.sizes, number).body(first.body)
    for k, f in enumerate(group):
        given[f.kernel.name] = first.name, tuple(c[k] for c in different)
    return {first.name: replace(first, sizes=(*first.sizes, *names.values()), body=body)}


def _free(kernel: L.Kernel, count: int) -> list[str]:
    bound = (s.var if isinstance(s, L.For) else s.name for s in L.walk(kernel.body) if isinstance(s, L.For | L.Let))
    taken = {*kernel.sizes, *bound}
    return list(islice((name for k in naturals() if (name := f"{STEM}{k}") not in taken), count))


def _steps(steps: tuple[L.Step, ...], given: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[L.Step, ...]:
    done: list[L.Step] = []
    for s in steps:
        if isinstance(s, L.Loop):
            done.append(replace(s, steps=_steps(s.steps, given)))
        elif s.kernel not in given:
            done.append(s)
        else:
            kernel, numbers = given[s.kernel]
            sizes: tuple[Dim, ...] = (*s.sizes, *numbers)
            done.append(L.Call(kernel, sizes, s.places, s.node, s.origin))
    return tuple(done)


class _Copy:
    """A copy of statements, in which what `number` gives stands in place of each number that may be given. `other` sees
    what else is a constant."""

    def __init__(self, sizes: Sequence[str], number: Number, other: Callable[[L.Const], None] | None = None):
        self.number, self.other = number, other
        self.size = L.Var(sizes[0]) if len(sizes) == 1 else None
        self.bound: set[str] = set()  # names of what is constant in each copy of a loop's body, or differs in lanes
        self.turning: set[str] = set()  # of what differs from turn to turn of a loop, but for those that threads share
        self.registers: set[str] = set()

    def body(self, stmts: tuple[L.Stmt, ...]) -> tuple[L.Stmt, ...]:
        return tuple([self.statement(s) for s in stmts])

    def statement(self, s: L.Stmt) -> L.Stmt:
        match s:
            case L.Let(name, value):
                for names in (self.bound, self.turning):
                    if _depends(value, names):
                        names.add(name)
                return L.Let(name, self.value(value))
            case L.Store(buffer, index, value):
                return L.Store(buffer, self._index(buffer, index), self.value(value))
            case L.Reduce(buffer, index, fold, value, into):
                return L.Reduce(buffer, self._index(buffer, index), fold, self.value(value), into)
            case L.For():
                return self.loop(s)
            case L.If(condition, body):
                return L.If(self.value(condition), self.body(body))
            case L.Prefetch(buffer, index, level):
                return L.Prefetch(buffer, self._index(buffer, index), level)
            case L.Register(name):
                self.registers.add(name)
            case L.Check(condition):
                self._seen(condition)
        return s

    def loop(self, s: L.For) -> L.For:
        start, stop = s.start, s.stop
        plain = s.unroll == 1 and s.lanes == 1
        if s.unroll != 0:  # whether lanes are left over is known where a number is, but not of what threads share
            given = plain or s.parallel
            start, stop = (self.value(e) if given or type(e) is not L.Const else e for e in (start, stop))
        if not plain:
            self.bound.add(s.var)
        bound = s.bound if s.bound is None or s.unroll == 0 else self.value(s.bound)
        when = self._when(s) if s.parallel else s.when
        if not s.parallel:
            self.turning.add(s.var)
        body = self.body(s.body)
        return L.For(s.var, start, stop, body, s.step, s.lanes, bound, s.unroll, s.parallel, when, s.first)

    def _when(self, s: L.For) -> L.Expr | None:
        """Where threads share a loop; what they always share is worth while for more than -1."""
        if s.when is not None or self.size is None:
            return None if s.when is None else self.value(s.when)
        least = self.number(NEVER_FEW)
        return None if least == NEVER_FEW else L.Apply("gt", (self.size, least), "bool")

    def _index(self, buffer: str, e: L.Expr) -> L.Expr:
        return e if buffer in self.registers else self.value(e, True)

    def value(self, e: L.Expr, index: bool = False) -> L.Expr:
        """An expression; in an `index`, what is added may be given whatever else it is made of."""
        if type(e) is L.Const:
            return self._constant(e)
        if type(e) is L.Load:
            return L.Load(e.buffer, self._index(e.buffer, e.index), e.dtype)
        if type(e) is not L.Apply:
            return e
        if not _depends(e, self.bound):
            return self._free(e)
        into = index and e.fn in ("add", "sub")
        if e.fn == "cast" or (not into and e.dtype == "i64"):
            return self._seen(e)
        return L.Apply(e.fn, tuple([self._part(a, into) for a in e.args]), e.dtype)

    def _part(self, a: L.Expr, index: bool) -> L.Expr:
        if type(a) is L.Const and not index:
            return self._seen(a)
        return self.value(a, index)

    def _seen(self, e: L.Expr) -> L.Expr:
        """As it is."""
        if self.other is not None:
            for x in L.parts(e):
                if type(x) is L.Const:
                    self.other(x)
        return e

    def _constant(self, c: L.Const) -> L.Expr:
        return self.number(c) if c.dtype == "i64" else self._seen(c)

    def _free(self, e: L.Expr) -> L.Expr:
        """What is the same in all lanes and copies."""
        if type(e) is L.Const:
            return self._constant(e)
        if type(e) is not L.Apply:
            return e
        if e.fn in _DIVIDES and _depends(e, self.turning):
            return L.Apply(e.fn, (self._free(e.args[0]), self._seen(e.args[1])), e.dtype)
        return L.Apply(e.fn, tuple([self._free(a) for a in e.args]), e.dtype)


def _depends(e: L.Expr, names: Collection[str]) -> bool:
    """Whether it reads memory, or has one of the names."""
    left = [e]
    while left:
        e = left.pop()
        if type(e) is L.Load or (type(e) is L.Var and e.name in names):
            return True
        if type(e) is L.Apply:
            left += e.args
    return False
