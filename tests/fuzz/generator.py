"""Grows a program: a pool of typed values, and productions that take some of them and add a statement.

Random programs are rarely wrong where sizes all differ and values flow in one line. So a program draws its sizes from
a palette of one to three, often of one alone; productions ask for an operand by its shape, which makes a new argument
of the function where the pool has none; and values are used again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from .program import Program

Dim = int | str  # a number, the name of a size, or what is computed from some: "N + 3"
Shape = tuple[Dim, ...]

PALETTES: tuple[tuple[Dim, ...], ...] = (
    (3,), (2,), (4,), ("N",), (1,), (0, 3), (0, 2), (16,), (17,), (17, 2), (2, 3), (3, 4, 2), (1, 3), (1, 4, 2), (8,),
    ("N", "M"), ("N", 3), ("N", "M", "K"), ("N", 2), (5, "N"), (16, 4), (2, 17), ("N", 1), (8, 16), (3, 3, 5), (33, 2),
    (70, 3), (130, 2), ("N", 70), (0, "N"), (48,),
)  # fmt: skip
VALUES = ("normal",) * 16 + ("whole",) * 3 + ("wild",)
MOST_ELEMENTS = 6000
SIZES_OF_SYMBOLS = (3, 2, 4, 1, 5, 16, 17, 0)


@dataclass(frozen=True)
class Value:
    """What a name stands for; `needs` are the names through which a gradient could reach it."""

    name: str
    dtype: str
    shape: Shape
    needs: frozenset[str] = frozenset()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def real(self) -> bool:
        return self.dtype == "f32"


@dataclass
class Scope:
    """A block of statements; `local` are the names it made."""

    lines: list[str]
    pool: list[Value]
    local: set[str]
    depth: int


@dataclass
class Generator:
    rng: random.Random
    palette: tuple[Dim, ...]
    inputs: list[Value] = field(default_factory=list)
    scope: Scope = field(default_factory=lambda: Scope([], [], set(), 0))
    count: int = 0
    constants: list[str] = field(default_factory=list)  # definitions, which stand behind the function

    # --- names and statements ----------------------------------------------------------------------------------------

    def name(self, letter: str = "v") -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def write(self, line: str) -> None:
        self.scope.lines.append("    " * (self.scope.depth + 1) + line)

    def add(self, value: Value) -> Value:
        self.scope.pool.append(value)
        self.scope.local.add(value.name)
        return value

    def let(
        self, expression: str, shape: Sequence[Dim], of: Sequence[Value], dtype: str = "f32", target: str = "{}"
    ) -> Value:
        """A new value, made of `of`; `target` may give it indices."""
        name = self.name()
        self.write(f"{target.format(name)} = {expression}")
        needs = frozenset().union(*(v.needs | {v.name} for v in of if v.real)) if dtype == "f32" else frozenset()
        return self.add(Value(name, dtype, tuple(shape), needs))

    # --- choices -----------------------------------------------------------------------------------------------------

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def one_of(self, *items):
        return self.rng.choice(items)

    def size(self) -> Dim:
        return self.rng.choice(self.palette)

    def shape(self, low: int = 0, high: int = 3) -> Shape:
        return tuple(self.size() for _ in range(self.rng.randint(low, high)))

    def fits(self, shape: Sequence[Dim]) -> bool:
        return len(shape) <= 4 and elements(shape) <= MOST_ELEMENTS

    def given(self, shape: Sequence[Dim], dtype: str = "f32") -> Value:
        """A new argument of the function. A single bool cannot be one, and computed sizes are not declared."""
        if any(isinstance(n, str) and not n.isidentifier() for n in shape):
            other = self.given((), "f32")
            spread = f"broadcast({other.name}, {text_of(shape)})"
            if dtype == "bool":
                return self.let(f"{spread} > 0.2", shape, [], "bool")
            return self.let(spread if dtype == "f32" else f"cast({spread} * 9, {dtype})", shape, [other], dtype)
        if dtype == "bool" and not shape:
            return self.let(f"{self.given(()).name} > 0.2", (), [], "bool")
        value = Value(self.name("x"), dtype, tuple(shape))
        self.inputs.append(value)
        self.scope.pool.append(value)
        return value

    def pick(self, wanted: Callable[[Value], bool] = lambda v: True, low: int = 0, dtype: str = "f32") -> Value:
        """A value of a rank of `low` or more, of late ones the likelier; a new argument where there is none."""
        found = [v for v in self.scope.pool if v.dtype == dtype and v.rank >= low and wanted(v)]
        if found and not self.chance(0.06):
            return self.rng.choice(found[-4:] if self.chance(0.6) else found)
        for attempt in range(200):
            rank = self.rng.randint(low, max(low, self.one_of(2, 3, 3, 4)))
            sizes = self.palette if attempt < 20 else (*self.palette, 1, 2, 3)
            new = Value("", dtype, tuple(self.rng.choice(sizes) for _ in range(rank)))
            if self.fits(new.shape) and wanted(new):
                return self.given(new.shape, dtype)
        raise ValueError("no shape is wanted")

    def like(self, shape: Sequence[Dim], dtype: str = "f32", anew: float = 0.15) -> Value:
        """A value of exactly this shape."""
        found = [v for v in self.scope.pool if v.shape == tuple(shape) and v.dtype == dtype]
        if found and not self.chance(anew):
            return self.rng.choice(found)
        return self.given(shape, dtype)


def elements(shape: Sequence[Dim]) -> int:
    """About how many there are."""
    return prod(n if isinstance(n, int) else 6 if n.isidentifier() else 20 for n in shape)


def text_of(shape: Sequence[Dim]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def declared(v: Value) -> str:
    return f"{v.name}: {v.dtype}{text_of(v.shape) if v.shape else ''}"


def computed(text: str) -> Dim:
    """A size as an expression, in parentheses."""
    return f"({text})"


def generate(seed: int, number: int) -> Program:
    """Program `number` of a seed."""
    from .blocks import BLOCKS, states, training_program
    from .productions import PRODUCTIONS

    rng = random.Random(f"{seed} {number}")
    if rng.random() < 0.08:
        return training_program(rng, seed * 1_000_003 + number)
    g = Generator(rng, rng.choice(PALETTES))
    remembers = rng.random() < 0.12 and states(g)
    table = {**PRODUCTIONS, **BLOCKS}
    few = rng.sample(list(table), rng.randint(4, len(table)))  # swarm testing: what is left out lets the rest meet
    weights = [table[p] for p in few]
    wanted = len(g.scope.lines) + rng.choice((2, 3, 4, 5, 6, 8, 12))
    while len(g.scope.lines) < wanted:
        step = rng.choices(few, weights)[0]
        step(g)
    text = _model(g) if remembers else _function(g)
    return Program(text, _sizes(g), rng.choice(VALUES), seed * 1_000_003 + number)


def _function(g: Generator) -> str:
    made = [v for v in g.scope.pool if v.name in g.scope.local]
    last = made[-1]
    results = [*[v for v in made[:-1] if g.chance(0.25 if v.real else 0.5)][-5:], last]
    if last.shape and isinstance(last.shape[0], str) and g.chance(0.5):
        results = [v for v in results if v.shape[:1] == last.shape[:1]]  # perhaps each example for itself
    elif g.chance(0.1):
        results.append(g.rng.choice(g.scope.pool))  # perhaps an argument, or the same again
    result = ", ".join(v.name for v in results)
    result = f"({result})" if len(results) > 1 else result
    head = ", ".join(map(declared, g.inputs))
    return "\n".join([f"fn f({head}) {{", *g.scope.lines, f"    return {result}", "}", *g.constants, ""])


def _model(g: Generator) -> str:
    """What `states` began: at the end each state is given a value, which may be another's."""
    known = [v for v in g.scope.pool if v.name.startswith("s")]
    for s in g.rng.sample(known, len(known)):
        new = g.like(s.shape, anew=0.05)
        g.write(f"{s.name} := {g.one_of('{}', '{}', '0.5 * {}', '{} + {s}').format(new.name, s=s.name)}")
    head = ", ".join(map(declared, g.inputs))
    last = [v for v in g.scope.pool if v.name in g.scope.local][-1]
    results = f"y: {last.dtype}[*out]"
    return "\n".join(
        [f"model M({head}) -> ({results}) {{", *g.scope.lines, f"    y = {last.name}", "}", *g.constants, ""]
    )


def _sizes(g: Generator) -> tuple[dict[str, int], ...]:
    """Several combinations, the first with all sizes equal. A size that is named only inside has no value here."""
    names = sorted({name for v in g.inputs for n in v.shape for name in re.findall(r"[A-Z]\w*", str(n))})
    if not names:
        return ({},)
    divided = any(" // " in line for line in g.scope.lines)
    equal = g.rng.choice((2, 4, 12, 16) if divided else SIZES_OF_SYMBOLS[:6])
    found = [dict.fromkeys(names, equal)]
    for _ in range(2):
        found.append({n: g.rng.choice(SIZES_OF_SYMBOLS) for n in names})
    return tuple(found)
