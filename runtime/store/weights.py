"""Weights from elsewhere: the arrays of an .npz or .safetensors file as a model's parameters and state.

In: arrays by name, and `rules`. Out: the model with every parameter and state set, or a DataError with one diagnostic
for every mismatch, all of them at once (E0627). Arrays without a rule go to the variable of their own name. Or arrays
are taken by position: as they come in the file, to our layers as they come in the model, in each layer in the order of
its declarations; safetensors keep no order, so there it is refused. `suggest` drafts rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np

from ...compiler.manifest import Variable
from ...compiler.types.tensors import TensorType
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import DataError, NncError, error
from ..call.arrays import NUMPY, Wanted, convert, describe
from ..call.column import Array
from ..network import Network
from .rules import Part, Rows, Rule


def load(
    network: Network,
    path: Path,
    arrays: Mapping[str, Array],
    rules: Sequence[Rule] = (),
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
        found.by_rules(rules)
    if found.problems:
        raise DataError([Diagnostic("E0627", f"{path}: {p}") for p in found.problems])
    network.assign(found.taken)
    return {name: found.source[name] for name in found.taken}


def loadable(network: Network) -> list[Variable]:
    """What a file from elsewhere can set."""
    return [v for v in network.manifest.variables if v.role in ("weight", "bias", "state", "normalize")]


class _Found:
    """What goes where, and everything that does not fit."""

    def __init__(self, ours: Mapping[str, Variable], theirs: Mapping[str, Array], transpose: bool):
        self.ours, self.theirs, self.transpose = ours, theirs, transpose
        self.taken: dict[str, Array] = {}
        self.problems: list[str] = []
        self.source: dict[str, str] = {}  # the name in the file, by ours
        self.used: set[str] = set()  # names of the file that rules name
        self.rows: dict[str, list[Rows]] = {}  # of those, the rows that they take, where not all

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
        unplaced: list[str] = []
        for name in self.theirs:
            chosen = _about(name, rules)
            if not chosen:
                extra.append(name)
            for rule in chosen:
                if rule.kind == "=":
                    self._by_rule(rule, name)
        for name, rows in self.rows.items():
            self._check_rows(name, rows)
        for name in (n for n in extra if n not in self.used):
            if name in self.ours:
                self._take(name, name, self.theirs[name])
            else:
                unplaced.append(name)
        self.problems += [f"nothing is there for `{n}` {type_text(self.ours[n])}" for n in self._missing(kept)]
        self.problems += [f"the model has no place for `{n}` {describe(self.theirs[n])}" for n in unplaced]

    def _by_rule(self, rule: Rule, name: str) -> None:
        """Take what a rule says of an array, and of those that it names beside it."""
        target, named = rule.target(name), rule.named(name)
        said = ", ".join(" + ".join(part.said(n) for n, part in parts) for parts in named)
        for n, part in (pair for parts in named for pair in parts):
            self.used.add(n)
            if part.rows is not None and n in self.theirs:
                self.rows.setdefault(n, []).append(part.rows)
        if target not in self.ours:
            self.problems.append(f"`{said}` should go to `{target}`, which the model does not have")
            return
        try:
            value = _joined([_total([self._read(n, part) for n, part in parts]) for parts in named])
        except ValueError as e:
            self.problems.append(f"`{said}` for `{target}`: {e}")
            self.source.setdefault(target, said)
        else:
            self._take(target, said, value, said=True)

    def _read(self, name: str, part: Part) -> Array:
        """Raises ValueError."""
        if name not in self.theirs:
            raise ValueError(f"there is no `{name}`")
        try:
            return part.of(self.theirs[name])
        except ValueError as e:
            raise ValueError(f"`{name}` {describe(self.theirs[name])} {e}") from e

    def _check_rows(self, name: str, taken: Sequence[Rows]) -> None:
        """Each row of an array goes somewhere, and once."""
        array, end = self.theirs[name], 0
        for start, stop in [*sorted(taken), (len(array) if array.ndim else 0, 0)]:
            if start != end:
                a, b = sorted((start, end))
                what = "are taken twice" if start < end else "go nowhere"
                self.problems.append(f"rows {a} to {b} of `{name}` {describe(array)} {what}")
                return
            end = stop

    def by_position(self) -> None:
        layers: dict[str, list[str]] = {}
        for name in (n for n, v in self.ours.items() if v.role != "normalize"):
            layers.setdefault(name.rpartition(".")[0], []).append(name)
        order = [name for names in layers.values() for name in names]
        for ours, theirs in zip(order, self.theirs, strict=False):
            self._take(ours, theirs, self.theirs[theirs])
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

    def _take(self, ours: str, theirs: str, array: Array, *, said: bool = False) -> None:
        """`said`: a rule says whether it is transposed, so a square matrix is no question."""
        v = self.ours[ours]
        if ours in self.source:
            self.problems.append(f"`{ours}` would be `{self.source[ours]}` and `{theirs}`")
            return
        self.source[ours] = theirs
        if self.transpose and array.ndim == 2:
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


def _about(name: str, rules: Sequence[Rule]) -> list[Rule]:
    """The rules for an array: the first that fits, or where that takes rows, each that does."""
    fit = [r for r in rules if r.kind in ("=", "ignore") and r.pattern.fullmatch(name)]
    return fit[:1] if not fit or not fit[0].takes_rows else [r for r in fit if r.takes_rows]


def _total(arrays: Sequence[Array]) -> Array:
    """The sum of arrays of one shape, rounded once. Raises ValueError."""
    if len(arrays) == 1:
        return arrays[0]
    if len({a.shape for a in arrays}) > 1:
        raise ValueError(f"{' and '.join(map(describe, arrays))} cannot be added")
    total: Array = np.sum([a.astype(np.float64) for a in arrays], axis=0)
    return total


def _joined(arrays: Sequence[Array]) -> Array:
    """The rows of arrays, one behind the other. Raises ValueError."""
    if len(arrays) == 1:
        return arrays[0]
    if len({a.shape[1:] if a.ndim else None for a in arrays}) > 1 or not arrays[0].ndim:
        raise ValueError(f"the rows of {' and '.join(map(describe, arrays))} cannot stand behind each other")
    return np.concatenate(arrays)


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
