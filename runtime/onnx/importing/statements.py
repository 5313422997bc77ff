"""Statements of a text, and how they become lines: what is read once stands where it is read, as far as that reads
well."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...call.column import Array
from .values import Value

GAP = re.compile(r"\{(\d+)\}(?!\[)|\{(\d+)\}")  # of a template; where an index follows, only a name can stand
NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*")  # in a text, but no attribute
MAX_INLINE = 60  # characters of an expression that stands where it is read


@dataclass(frozen=True, slots=True)
class Statement:
    """`names` are what it makes; a `whole` one is written as it is, and has no expression that could stand elsewhere.
    `module` is where in the network it stands; `arrays` are those of its layer, which is called `label`, by their names
    in it, or without a label its own. `inner` are names that mean something only in it."""

    names: tuple[str, ...]
    template: str
    operands: tuple[Value, ...] = ()
    module: tuple[str, ...] = ()
    whole: bool = False
    label: str = ""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    inner: tuple[str, ...] = ()

    @property
    def is_pipe(self) -> bool:
        return self.template.startswith("{0} |> ")

    @property
    def filled(self) -> str:
        return GAP.sub(lambda m: self.operands[int(m[1] or m[2])].name, self.template)

    @property
    def text(self) -> str:
        if self.whole:
            return self.filled
        return f"{self.target} = {self.filled}"

    @property
    def target(self) -> str:
        """What stands left of its `=`."""
        return self.names[0] if len(self.names) == 1 else f"({', '.join(self.names)})"

    @property
    def owned(self) -> dict[str, Array]:
        """Its arrays by their paths below what it stands in."""
        return {f"{self.label}.{n}" if self.label else n: a for n, a in self.arrays.items()}

    @property
    def gaps(self) -> list[tuple[str, bool]]:
        """The operands in the order in which they are read, and whether an expression may stand there."""
        return [(self.operands[int(m[1] or m[2])].name, m[1] is not None) for m in GAP.finditer(self.template)]


def unlike(name: str, is_taken: Callable[[str], bool]) -> str:
    """The name, or the name with the first number behind it that makes it free."""
    found, k = name, 1
    while is_taken(found):
        k += 1
        found = f"{name}_{k}"
    return found


def live(statements: Sequence[Statement], wanted: set[str]) -> list[Statement]:
    """Those that what is wanted depends on."""
    kept: list[Statement] = []
    for s in reversed(statements):
        if not s.names or wanted & set(s.names):
            kept.append(s)
            wanted = wanted | {v.name for v in s.operands}
    return kept[::-1]


def lines(statements: Sequence[Statement], outputs: set[str]) -> list[str]:
    """The lines of a body. An expression stands in the one that reads it in front of a pipe always, else where it is
    short and has no layer in it."""
    held = _held(statements, outputs)
    waiting: dict[str, str] = {}
    made: list[str] = []
    for s in statements:

        def fill(m: re.Match[str], s: Statement = s) -> str:
            name = s.operands[int(m[1] or m[2])].name
            return f"({waiting.pop(name)})" if name in waiting else name

        text = GAP.sub(fill, s.template)
        if not s.whole and s.names[0] in held:
            waiting[s.names[0]] = text
        elif s.whole:
            made.append(text)
        else:
            made.append(f"{s.target} = {text}")
    return made


def _held(statements: Sequence[Statement], outputs: set[str]) -> set[str]:
    """The names whose expressions stand where they are read."""
    reads = Counter(name for s in statements for name, _ in s.gaps)
    made = {s.names[0]: s for s in statements if len(s.names) == 1 and not s.whole}
    held: set[str] = set()
    lengths: dict[str, int] = {}
    for s in statements:
        length = len(s.template)
        for k, (name, is_free) in enumerate(s.gaps):
            source = made.get(name)
            if source is None or s.whole or reads[name] != 1 or name in outputs or not is_free:
                continue
            if (k == 0 and (s.is_pipe or s.template == "{0}")) or (lengths[name] <= MAX_INLINE and not source.label):
                held.add(name)
                length += lengths[name]
        lengths |= dict.fromkeys(s.names, length)
    return held
