"""Rules that say which array of a file is which variable of a model, a line each; `#` begins a comment:

    OURS = THEIRS                   ours takes theirs
    OURS = THEIRS.T                 with its axes in reverse order
    OURS = THEIRS.permute(3, 2, 0, 1)   with its axes in this order, as NumPy's `transpose` has them
    OURS = THEIRS[64:128]           rows of it; each row of theirs must go somewhere, and once
    OURS = THEIRS + OTHER           the sum of two, as of the two biases that some programs keep
    OURS = THEIRS, OTHER            the rows of one behind those of the other
    OURS = [1, 2.5]                 numbers, such as the mean and scale of the inputs, `normalize/x/mean`
    ignore THEIRS                   theirs is not needed
    keep OURS                       ours stays as it is

`*` stands for any characters but dots, `{k}` for a whole number; on our side `{k}`, `{k+4}` and `{k-1}` give it again
and each `*` what theirs stood for: `ResNet.block_{k+1}.conv_{n}.W = layer1.{k}.conv{n}.weight`. Rows are taken before
axes change places, sums before what stands behind a comma. The first rule that fits an array counts, and of rules for
rows each.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...dsl.errors import DataError, error
from ...dsl.files import open_regular
from ..call.column import Array
from ..data.files import unreadable

Rows = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """One of the arrays on the right: rows of it, in an order of its axes; an empty one is the reverse."""

    name: str  # with `{k}` and `*`
    rows: Rows | None = None
    order: tuple[int, ...] | None = None

    def of(self, array: Array) -> Array:
        """Raises ValueError."""
        if self.rows is not None:
            if array.ndim == 0 or self.rows[1] > len(array):
                raise ValueError(f"has no rows {self.rows[0]} to {self.rows[1]}")
            array = array[self.rows[0] : self.rows[1]]
        if self.order is None:
            return array
        if self.order and sorted(self.order) != list(range(array.ndim)):
            raise ValueError(f"has {array.ndim} axes, which `{self._permuted}` does not put in order")
        return array.transpose(self.order or None)

    def said(self, name: str) -> str:
        """As it is written of an array of this name."""
        rows = "" if self.rows is None else f"[{self.rows[0]}:{self.rows[1]}]"
        return f"{name}{rows}{self._permuted}"

    @property
    def _permuted(self) -> str:
        if self.order is None:
            return ""
        return f".permute({', '.join(map(str, self.order))})" if self.order else ".T"


@dataclass(frozen=True, slots=True)
class Rule:
    kind: str  # =, value, ignore, keep
    pattern: re.Pattern[str]  # of the name it is about: theirs (the first of several), or ours of `keep` and `value`
    ours: str = ""  # with `{k+1}` and `*`
    sums: tuple[tuple[Part, ...], ...] = ()  # one behind the other
    value: Array | None = None

    @property
    def takes_rows(self) -> bool:
        return bool(self.sums) and self.sums[0][0].rows is not None

    def target(self, theirs: str) -> str:
        """Our name for one of theirs that the rule is about."""
        return self._given(theirs, self.ours)

    def named(self, theirs: str) -> list[list[tuple[str, Part]]]:
        """The sums, each array with its name in the file; the first is this one."""
        return [[(self._given(theirs, p.name), p) for p in parts] for parts in self.sums]

    def _given(self, theirs: str, name: str) -> str:
        found = self.pattern.fullmatch(theirs)
        assert found is not None
        stars = iter([v for k, v in found.groupdict().items() if k.startswith("star")])

        def given(place: re.Match[str]) -> str:
            if place[0] == "*":
                return next(stars)
            return str(int(found[place[1]]) + int((place[2] or "0").replace(" ", "")))

        return _PLACE.sub(given, name)


_PLACE = re.compile(r"\*|\{(\w+)\s*([+-]\s*\d+)?\}")
_COMMA = re.compile(r",(?![^()]*\))")  # not those of `permute`
_PART = re.compile(r"(?P<name>[^\s\[\],]+?)(?:\[(?P<a>\d+):(?P<b>\d+)\])?(?P<order>\.T|\.permute\([\d, ]+\))?")


def read(path: Path) -> list[Rule]:
    """The rules of a file (E0628 for a line that is none)."""
    try:
        with open_regular(path) as f:
            text = f.read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise unreadable(path, e) from e
    return parse(text, path)


def parse(text: str, path: object) -> list[Rule]:
    """The rules of a text, which is at `path`."""
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        if line := line.partition("#")[0].strip():
            try:
                rules.append(rule(line))
            except ValueError as e:
                raise error(
                    "E0628",
                    f"{path}:{number}: {e}",
                    kind=DataError,
                    help="a line is `OURS = THEIRS`, `ignore THEIRS` or `keep OURS`",
                ) from e
    return rules


def rule(line: str) -> Rule:
    """One line. Raises ValueError."""
    ours, equals, theirs = (s.strip() for s in line.partition("="))
    if not equals:
        kind, _, name = line.partition(" ")
        if kind not in ("ignore", "keep") or not name.strip():
            raise ValueError(f"`{line}` is no rule")
        return Rule(kind, _pattern(name.strip()))
    if theirs.startswith("["):
        return Rule("value", _pattern(ours), value=_numbers(theirs, line))
    sums = tuple(tuple(_part(part.strip(), line) for part in text.split(" + ")) for text in _COMMA.split(theirs))
    if not ours:
        raise ValueError(f"`{line}` is no rule")
    first = sums[0][0].name
    pattern = _pattern(first)
    stars = sum(name.startswith("star") for name in pattern.groupindex)
    for text in (ours, *(p.name for parts in sums for p in parts)):
        for place in _PLACE.finditer(text):
            if place[0] != "*" and place[1] not in pattern.groupindex:
                raise ValueError(f"`{{{place[1]}}}` stands for nothing in `{first}`")
        if text.count("*") != stars:
            raise ValueError(f"`{text}` and `{first}` have not as many `*`")
    return Rule("=", pattern, ours, sums)


def _part(text: str, line: str) -> Part:
    m = _PART.fullmatch(text)
    if m is None:
        raise ValueError(f"`{line}` is no rule")
    rows = None if m["a"] is None else (int(m["a"]), int(m["b"]))
    if rows is not None and rows[0] >= rows[1]:
        raise ValueError(f"`{m[0]}` has no rows")
    order = None if m["order"] is None else tuple(map(int, re.findall(r"\d+", m["order"])))
    return Part(m["name"], rows, order)


def _numbers(text: str, line: str) -> Array:
    try:
        found = np.array(json.loads(text), np.float64)
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"`{line}` is no rule") from None
    if found.ndim != 1:
        raise ValueError(f"`{line}` is no rule")
    return found


def _pattern(name: str) -> re.Pattern[str]:
    parts, at, known = [], 0, set()
    for n, place in enumerate(_PLACE.finditer(name)):
        parts.append(re.escape(name[at : place.start()]))
        at = place.end()
        if place[0] == "*":
            parts.append(f"(?P<star{n}>[^.]*)")
        elif place[2] or place[1].startswith("star") or not place[1].isidentifier():
            raise ValueError(f"`{place[0]}` cannot stand here")
        else:
            parts.append(f"(?P={place[1]})" if place[1] in known else rf"(?P<{place[1]}>\d+)")
            known.add(place[1])
    return re.compile("".join(parts) + re.escape(name[at:]))
