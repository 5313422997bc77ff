"""Weights into a model: all of a file's, or some, for the part of the model they are to begin.

In: a file, one of ours (a checkpoint, or a run's folder) or from elsewhere; what is asked. Out: the model with them,
and a `Transfer`. Without `into` and `only` it is all or nothing: our own files by `checkpoint.load_learned`, others by
`weights.load`. With them, parameters and state (where a file of ours has averages of parameters, those) go to the path
that they have below the part they come from, taken below the part they go into:

    into          the part of the model; the model itself where only `only` is given
    from_         the part of the file; where that is not said, the first of these that the file has: the path `into`,
                  the same path in the file's model, the file's model as a whole
    only          paths of ours, or of parts, `*` for any characters but dots: these, and each of them must be taken

Normalisation, class names and what training remembers stay: they are of the other run's data. Nothing changes unless
something is taken and everything that `only` names fits (E0624); a part that there is not is E0608.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...compiler.manifest import Variable
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import ArgumentError, DataError, error
from ..call.column import Array
from ..call.messages import listed, unknown
from ..network import Network
from . import checkpoint, foreign, weights
from .rules import read


@dataclass(frozen=True, slots=True)
class Transfer:
    """What became of a model's weights, by path. `taken`: the name in the file; `left`: as they were, for the file has
    none; `refused`: why what the file has does not fit. `unused` are names of the file that have no place here."""

    taken: Mapping[str, str]
    left: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{len(self.taken)} taken: {listed(list(self.taken))}"]
        lines += [f"{len(self.left)} left, for the file has none: {listed(self.left)}"] if self.left else []
        lines += [f"refused `{name}`: {why}" for name, why in self.refused.items()]
        lines += [f"{len(self.unused)} of the file not used: {listed(self.unused)}"] if self.unused else []
        return "\n".join(lines)


def load(
    network: Network,
    path: Path,
    rules: Path | None = None,
    *,
    by_position: bool = False,
    transpose: bool = False,
    into: str | None = None,
    from_: str | None = None,
    only: Sequence[str] = (),
) -> Transfer:
    """See above; `rules`, `by_position` and `transpose` are those of `weights`, where all arrays have to fit."""
    if into is None and from_ is None and not only:
        if rules is None and not by_position and _is_ours(path):
            return Transfer(checkpoint.load_learned(network, path))
        said = read(rules) if rules is not None else ()
        return Transfer(weights.load(network, path, _read(path)[1], said, by_position=by_position, transpose=transpose))
    if rules is not None or by_position or transpose:
        raise error(
            "E0604",
            "`into`, `from_` and `only` match by path: without rules, `by_position` and `transpose`",
            kind=ArgumentError,
        )
    return _load_part(network, path, into, from_, only)


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        return not foreign.is_folder(path)
    return path.suffix == ".nnw" or checkpoint.is_checkpoint(path)


def _read(path: Path) -> tuple[str | None, dict[str, Array]]:
    """The name of the model that a file is of, where it says so, and its arrays by name."""
    return checkpoint.read_learned(path) if _is_ours(path) else (None, foreign.read(path))


def _load_part(network: Network, path: Path, into: str | None, from_: str | None, only: Sequence[str]) -> Transfer:
    ours = {v.path: v for v in weights.loadable(network) if v.role != "normalize"}
    into = (network.manifest.model or "") if into is None else into
    if into not in (known := list(_parts(ours))):
        raise unknown("part of the model", into, known)
    model, arrays = _read(path)
    source = _source(network, into, from_, model, arrays, path)
    wanted = {n: v for n, v in ours.items() if _below(into, n) is not None and _is_chosen(n, only)}
    for pattern in only:
        if not any(_is_chosen(n, (pattern,)) for n in wanted):
            raise unknown(f"parameter or state of `{into}`", pattern, [n for n in ours if _below(into, n) is not None])
    theirs = {below: name for name in arrays if (below := _below(source, name)) is not None}
    pairs = {n: theirs.get(_below(into, n) or "") for n in wanted}
    values: dict[str, Array] = {}
    refused: dict[str, str] = {}
    for ours_name, name in pairs.items():
        if name is not None:
            found = weights.fitted(wanted[ours_name], arrays[name])
            if isinstance(found, str):
                refused[ours_name] = f"{found}, as `{name}`"
            else:
                values[ours_name] = found
    left = tuple(n for n, name in pairs.items() if name is None)
    wrong = {**{n: f"expected {weights.type_text(wanted[n])}, found none of that path" for n in left}, **refused}
    if wrong and (only or not values):
        help = f"it was looked for below `{source}` of the file, which has {listed(list(arrays))}"
        raise DataError(
            [
                Diagnostic("E0624", f"{path}: `{n}`: {why}", help=(help,) if n == list(wrong)[-1] else ())
                for n, why in wrong.items()
            ]
        )
    network.assign(values)
    used = {n for n in pairs.values() if n is not None}
    return Transfer({n: pairs[n] or "" for n in values}, left, refused, tuple(n for n in arrays if n not in used))


def _source(
    network: Network, into: str, given: str | None, model: str | None, arrays: Mapping[str, Array], path: Path
) -> str:
    """The part of the file."""
    if given is not None:
        candidates = [given]
    else:
        head, _, rest = into.partition(".")
        same = ".".join(filter(None, (model, rest))) if head == network.manifest.model else into
        candidates = [into, same, model or ""]
    for part in candidates:
        if any(_below(part, name) is not None for name in arrays):
            return part
    raise error(
        "E0624",
        f"{path}: there is no `{candidates[0]}` in it",
        kind=DataError,
        help=f"it has {listed(list(_parts(arrays)))}",
    )


def _below(part: str, name: str) -> str | None:
    """A path as it is below a part; None where it is elsewhere. Below "" is everything."""
    if not part or name == part:
        return name if not part else ""
    return name.removeprefix(f"{part}.") if name.startswith(f"{part}.") else None


def _parts(names: Mapping[str, Array] | Mapping[str, Variable]) -> Iterator[str]:
    """Every path, and what stands before a dot of one, once."""
    found: dict[str, None] = {}
    for name in names:
        pieces = name.split(".")
        found |= dict.fromkeys(".".join(pieces[:k]) for k in range(1, len(pieces) + 1))
    return iter(found)


def _is_chosen(name: str, only: Sequence[str]) -> bool:
    """Whether one of the patterns is about a path, or about a part that it is in."""
    if not only:
        return True
    patterns = (r"[^.]*".join(map(re.escape, p.split("*"))) for p in only)
    return any(re.fullmatch(rf"{p}(\..+)?", name, re.DOTALL) for p in patterns)
