"""Weights from elsewhere: the arrays of an .npz or .safetensors file as a model's parameters and state.

In: a file and rules. Out: the model with every parameter and state set, or a DataError with one diagnostic for
every mismatch, all of them at once (E0627). A rule is a line of text; `#` begins a comment:

    OURS = THEIRS         ours takes theirs; with `THEIRS.T` its axes in reverse order
    OURS = [1, 2.5]       numbers, such as the mean and scale of the inputs, `normalize/x/mean`
    ignore THEIRS         theirs is not needed
    keep OURS             ours stays as it is

`*` stands for any characters but dots, `{k}` for a whole number; on our side `{k}`, `{k+4}` and `{k-1}` give it again
and each `*` what theirs stood for: `ResNet.block_{k+1}.conv_{n}.W = layer1.{k}.conv{n}.weight`. The first rule that
fits counts; arrays without one go to the variable of their own name. Or arrays are taken by position: as they come in
the file, to our layers as they come in the model, in each layer in the order of its declarations; safetensors keep no
order, so there it is refused. `suggest` drafts rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from ...compiler.manifest import Variable
from ...compiler.types.tensors import TensorType
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import DataError, NncError, error
from ...dsl.files import open_regular
from ..call.arrays import NUMPY, Wanted, convert, describe
from ..call.column import Array
from ..data.files import unreadable
from ..network import Network


def load(
    network: Network,
    path: Path,
    arrays: Mapping[str, Array],
    rules: Path | None = None,
    *,
    by_position: bool = False,
    transpose: bool = False,
) -> dict[str, str]:
    """Set every parameter and state from the arrays of a file; what each of ours was there. With `transpose` a matrix
    whose shape is ours the other way round is transposed. Nothing changes unless everything fits."""
    found = _Found({v.path: v for v in loadable(network)}, arrays, transpose)
    if by_position:
        if path.suffix == ".safetensors":
            raise error(
                "E0627",
                f"{path}: by position needs a file that keeps the order of its arrays; this format sorts their names, "
                "`layers.10` before `layers.2`",
                kind=DataError,
                help="write rules: `nnc load-weights FILE WEIGHTS --suggest RULES` makes a draft",
            )
        found.by_position()
    else:
        found.by_rules(parse(rules) if rules is not None else [])
    if found.problems:
        raise DataError([Diagnostic("E0627", f"{path}: {p}") for p in found.problems])
    network.assign(found.taken)
    return {name: found.source[name] for name in found.taken}


def loadable(network: Network) -> list[Variable]:
    """What a file from elsewhere can set."""
    return [v for v in network.manifest.variables if v.role in ("weight", "bias", "state", "normalize")]


@dataclass(frozen=True, slots=True)
class Rule:
    kind: str  # =, value, ignore, keep
    pattern: re.Pattern[str]  # of the name it is about: theirs, or ours of `keep` and `value`
    ours: str = ""  # with `{k+1}` and `*`
    reverse: bool = False
    value: Array | None = None

    def target(self, theirs: str) -> str:
        """Our name for one of theirs that the rule is about."""
        found = self.pattern.fullmatch(theirs)
        assert found is not None
        stars = iter([v for k, v in found.groupdict().items() if k.startswith("star")])

        def given(place: re.Match[str]) -> str:
            if place[0] == "*":
                return next(stars)
            return str(int(found[place[1]]) + int((place[2] or "0").replace(" ", "")))

        return _PLACE.sub(given, self.ours)


_PLACE = re.compile(r"\*|\{(\w+)\s*([+-]\s*\d+)?\}")


def parse(path: Path) -> list[Rule]:
    """The rules of a file (E0628 for a line that is none)."""
    try:
        with open_regular(path) as f:
            text = f.read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise unreadable(path, e) from e
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        if line := line.partition("#")[0].strip():
            try:
                rules.append(_rule(line))
            except ValueError as e:
                raise error(
                    "E0628",
                    f"{path}:{number}: {e}",
                    kind=DataError,
                    help="a line is `OURS = THEIRS`, `ignore THEIRS` or `keep OURS`",
                ) from e
    return rules


def _rule(line: str) -> Rule:
    ours, equals, theirs = (s.strip() for s in line.partition("="))
    if not equals:
        kind, _, name = line.partition(" ")
        if kind not in ("ignore", "keep") or not name.strip():
            raise ValueError(f"`{line}` is no rule")
        return Rule(kind, _pattern(name.strip()))
    if theirs.startswith("["):
        return Rule("value", _pattern(ours), value=_numbers(theirs, line))
    if not ours or not theirs or " " in theirs:
        raise ValueError(f"`{line}` is no rule")
    reverse = theirs.endswith(".T")
    pattern = _pattern(theirs.removesuffix(".T"))
    stars = sum(name.startswith("star") for name in pattern.groupindex)
    for place in _PLACE.finditer(ours):
        if place[0] != "*" and place[1] not in pattern.groupindex:
            raise ValueError(f"`{{{place[1]}}}` stands for nothing in `{theirs}`")
    if ours.count("*") != stars:
        raise ValueError(f"`{ours}` and `{theirs}` have not as many `*`")
    return Rule("=", pattern, ours, reverse)


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


class _Found:
    """What goes where, and everything that does not fit."""

    def __init__(self, ours: Mapping[str, Variable], theirs: Mapping[str, Array], transpose: bool):
        self.ours, self.theirs, self.transpose = ours, theirs, transpose
        self.taken: dict[str, Array] = {}
        self.problems: list[str] = []
        self.source: dict[str, str] = {}  # the name in the file, by ours

    def by_rules(self, rules: Sequence[Rule]) -> None:
        kept = [
            n
            for n, v in self.ours.items()
            if v.role == "normalize" or any(r.kind == "keep" and r.pattern.fullmatch(n) for r in rules)
        ]
        for rule in rules:
            for name in self.ours:
                if rule.value is not None and rule.pattern.fullmatch(name):
                    self._set(name, rule.value)
        extra: list[str] = []
        for name in self.theirs:
            about = next((r for r in rules if r.kind in ("=", "ignore") and r.pattern.fullmatch(name)), None)
            if about is not None and about.kind == "ignore":
                continue
            target = about.target(name) if about is not None else name
            if target in self.ours:
                self._take(target, name, about is not None and about.reverse, about is not None)
            elif about is not None:
                self.problems.append(f"`{name}` should go to `{target}`, which the model does not have")
            else:
                extra.append(name)
        self.problems += [f"nothing is there for `{n}` {type_text(self.ours[n])}" for n in self._missing(kept)]
        self.problems += [f"the model has no place for `{n}` {describe(self.theirs[n])}" for n in extra]

    def by_position(self) -> None:
        layers: dict[str, list[str]] = {}
        for name in (n for n, v in self.ours.items() if v.role != "normalize"):
            layers.setdefault(name.rpartition(".")[0], []).append(name)
        order = [name for names in layers.values() for name in names]
        for ours, theirs in zip(order, self.theirs, strict=False):
            self._take(ours, theirs, False, False)
        if len(order) != len(self.theirs):
            self.problems.append(
                f"the file has {len(self.theirs)} arrays, the model {len(order)} parameters and states"
            )

    def _missing(self, kept: Iterable[str]) -> list[str]:
        return [n for n in self.ours if n not in self.source and n not in kept]

    def _set(self, ours: str, value: Array) -> None:
        """Numbers of a rule: one for all, or as many as ours has."""
        v = self.ours[ours]
        self.source[ours] = "the rule"
        if value.size not in (1, prod(v.shape)):
            self.problems.append(f"the rule for `{ours}` has {value.size} numbers, but it is {type_text(v)}")
            return
        self.taken[ours] = np.broadcast_to(value.reshape(v.shape if value.size > 1 else ()), v.shape)

    def _take(self, ours: str, theirs: str, reverse: bool, said: bool) -> None:
        """`said`: a rule says whether it is transposed, so a square matrix is no question."""
        v, array = self.ours[ours], self.theirs[theirs]
        if ours in self.source:
            self.problems.append(f"`{ours}` would be `{self.source[ours]}` and `{theirs}`")
            return
        self.source[ours] = theirs
        if reverse:
            array = array.T
        elif self.transpose and array.ndim == 2:
            if array.shape == v.shape[::-1] != v.shape:
                array = array.T
            elif array.shape == v.shape and v.shape[0] == v.shape[1] and not said:
                self.problems.append(
                    f"`{theirs}` for `{ours}` is square, so its shape does not say whether to "
                    f"transpose: write `{ours} = {theirs}` or `{ours} = {theirs}.T`"
                )
        if array.shape != v.shape:
            other = " (transposed it would fit)" if array.ndim == 2 and array.shape == v.shape[::-1] else ""
            self.problems.append(f"`{theirs}` is {describe(array)}, but `{ours}` {type_text(v)}{other}")
        elif array.dtype.kind != NUMPY[v.dtype].kind:
            self.problems.append(f"`{theirs}` is {describe(array)}, but `{ours}` {type_text(v)}")
        elif isinstance(found := fitted(v, array), str):
            self.problems.append(f"`{theirs}`: {found}")
        else:
            self.taken[ours] = found


def fitted(v: Variable, array: Array) -> Array | str:
    """An array as a variable holds it, or why it is none."""
    if array.shape != v.shape or array.dtype.kind != NUMPY[v.dtype].kind:
        return f"expected {type_text(v)}, found {describe(array)}"
    try:
        return convert(array, "the model", Wanted(v.path, NUMPY[v.dtype], v.shape, TensorType(v.dtype, v.shape)))
    except NncError as e:
        return e.diagnostics[0].message


def type_text(v: Variable) -> str:
    return v.dtype + (f"[{', '.join(map(str, v.shape))}]" if v.shape else "")
