"""A draft of rules: which arrays of a file might be which variables of a model, and how certain that is.

In: a network and the arrays of a file. Out: a `Draft`, the text of rules, each with why. Layers are paired with layers
whose arrays have the roles and shapes that ours have, by the `conventions` of other programs. A pair is certain

    by name       where theirs is called as ours is, or as this part of attention is
    by shape      where no other layer, here or there, has these roles and shapes
    by order      where those that have them differ in numbers alone, here and there: in the order of these numbers;
                  of several forms of names one of ours goes with the only one of theirs that has as many layers
    by place      where it is the only one that has the number of the layer before it, or the next

What is left is guessed, in natural order, by shape, role and likeness of names: to be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import TypeVar

from ...compiler.manifest import Variable
from ..call.arrays import describe
from ..call.column import Array
from ..network import Network
from .conventions import COUNTER, MARKS, PARTS, ROLES, Layer, Source, layers, notes
from .foreign import read
from .rules import parse
from .weights import load, loadable, type_text

K = TypeVar("K", bound=Hashable)
_NOTHING = Source("", (), ())
FLAT = "its rows may be images made flat with channels last, which is another order than ours"


@dataclass(frozen=True, slots=True)
class Pair:
    source: Source
    why: str
    is_certain: bool = True


@dataclass(slots=True)
class Draft:
    """Pairs by our paths, in the order of the model; `unused` are names of the file that no pair has."""

    ours: Mapping[str, Variable]
    arrays: Mapping[str, Array]
    pairs: dict[str, Pair] = field(default_factory=dict)

    @property
    def unused(self) -> list[str]:
        used = {n for p in self.pairs.values() for n in p.source.names}
        return [n for n in self.arrays if n not in used]

    @property
    def is_certain(self) -> bool:
        """Every variable has its array, every array its variable, and no pair is a guess."""
        found = [self.pairs.get(name) for name in self.ours]
        return all(p is not None and p.is_certain for p in found) and all(n.endswith(COUNTER) for n in self.unused)

    def text(self, file: str) -> str:
        lines = [f"# Suggested from the names and shapes in {file}: read before you use it."]
        lines += [f"# {note}" for note in notes(self.arrays)]
        for name, v in self.ours.items():
            pair = self.pairs.get(name)
            if pair is None:
                lines.append(f"# {name} {type_text(v)}: nothing fits")
            else:
                guess = "" if pair.is_certain else "a guess, "
                types = " and ".join(describe(self.arrays[n]) for n in pair.source.names)
                lines.append(f"{name} = {pair.source.text}  # {types}: {guess}{pair.why}")
        for name in self.unused:
            if MARKS.search(name):
                lines.append(f"# {name!r}: no rule can have this name")
                continue
            why = ": a counter of batches, which is not needed" if name.endswith(COUNTER) else ""
            lines.append(f"ignore {name}  # {describe(self.arrays[name])}{why}")
        return "\n".join(lines) + "\n"


def suggest(network: Network, path: Path) -> Draft:
    arrays = read(path)
    draft = Draft({v.path: v for v in loadable(network) if v.role != "normalize"}, arrays)
    here, there = _own(draft.ours), layers(arrays)
    _by_name(draft)
    _by_signature(draft, here, there)
    _guess(draft, here, there)
    return draft


def load_certain(network: Network, path: Path) -> Draft:
    """Take all parameters and state from a file, where its draft is certain; otherwise nothing changes."""
    draft = suggest(network, path)
    if draft.is_certain:
        load(network, path, draft.arrays, parse(draft.text(path.name), path))
    return draft


def _own(ours: Mapping[str, Variable]) -> list[Layer]:
    """Our layers in the order of the model, each variable by its role as the source of itself."""
    found: dict[str, Layer] = {}
    for path, v in ours.items():
        prefix, _, leaf = path.rpartition(".")
        shape = tuple(v.shape)
        found.setdefault(prefix, Layer(prefix)).parts[ROLES.get(leaf, leaf)] = Source(path, shape, (path,))
    return list(found.values())


# --- what is certain -------------------------------------------------------------------------------------------------


def _by_name(draft: Draft) -> None:
    for path, v in draft.ours.items():
        if path in draft.arrays and draft.arrays[path].shape == v.shape:
            draft.pairs[path] = Pair(Source(path, v.shape, (path,)), "the same name")


def _by_signature(draft: Draft, here: Sequence[Layer], there: Sequence[Layer]) -> None:
    unused = set(draft.unused)
    theirs = _grouped((x for x in there if unused.issuperset(x.names)), _signature)
    open_ = [x for x in here if not any(s.text in draft.pairs for s in x.parts.values())]
    flat = _flattened(here) if any(s.is_last and len(s.shape) > 2 for x in there for s in x.parts.values()) else set()
    matched: dict[str, Layer] = {}
    for signature, ours in _grouped(open_, _signature).items():
        for some, others, why in _classes(ours, theirs.get(signature, [])):
            for a, b in zip(some, others, strict=True):
                matched[a.name] = b
                _take(draft, a, b, why, flat)
    _by_neighbour(draft, here, matched, there)


def _take(draft: Draft, ours: Layer, theirs: Layer, why: str, flat: Set[str] = frozenset()) -> None:
    for role, own in ours.parts.items():
        source = theirs.parts[role]
        unclear = source.is_last and own.text in flat
        draft.pairs[own.text] = Pair(source, FLAT if unclear else why, not unclear)


def _flattened(here: Sequence[Layer]) -> set[str]:
    """Matrices of ours that do not read what the layer before them gives: it may be images that were made flat."""
    found, outs = set(), None
    for w in (x.parts["weight"] for x in here if len(x.parts.get("weight", _NOTHING).shape) > 1):
        if len(w.shape) == 2 and w.shape[1] != outs:
            found.add(w.text)
        outs = w.shape[0]
    return found


def _classes(ours: list[Layer], theirs: list[Layer]) -> Iterator[tuple[list[Layer], list[Layer], str]]:
    """Layers of one signature, in classes whose order is certain."""
    if len(ours) == len(theirs) == 1:
        yield ours, theirs, "the only one of these shapes"
        return
    own, other = _grouped(ours, _last), _grouped(theirs, _last)
    for name in [n for n in own if n in other]:
        yield from _by_counts(own.pop(name), other.pop(name), "the same name")
    yield from _by_counts([x for g in own.values() for x in g], [x for g in other.values() for x in g], "these shapes")


def _by_counts(ours: list[Layer], theirs: list[Layer], why: str) -> Iterator[tuple[list[Layer], list[Layer], str]]:
    """Forms of names of which there are as many here as there, and no other as many."""
    if len(ours) != len(theirs):
        return  # one more of theirs could be any of ours
    own, other = _grouped(ours, _form).values(), _grouped(theirs, _form).values()
    for group in own:
        n = len(group)
        if sum(len(g) == n for g in own) == sum(len(g) == n for g in other) == 1:
            yield group, next(g for g in other if len(g) == n), why if n == 1 else f"{why}, in order"


def _by_neighbour(draft: Draft, here: Sequence[Layer], matched: Mapping[str, Layer], theirs: Sequence[Layer]) -> None:
    """What has the number of the layer before it (`bn1` of `conv1`), or the next one (`downsample.1`)."""
    unused = set(draft.unused)
    for layer, before in zip(here[1:], here, strict=False):
        if layer.name in matched or before.name not in matched:
            continue
        known = matched[before.name]
        place, number = _place(known)
        if number < 0:
            continue
        found = [
            x for x in theirs
            if unused.issuperset(x.names) and _signature(x) == _signature(layer)
            and (_place(x) == (place, number) or (_form(x) == _form(known) and _place(x) == (place, number + 1)))
        ]  # fmt: skip
        if len(found) == 1:
            _take(draft, layer, found[0], f"behind {known.name}")
            unused -= found[0].names


def _place(layer: Layer) -> tuple[str, int]:
    """What a layer stands in, and its number there; -1 where it has none."""
    parent, _, name = layer.name.rpartition(".")
    number = re.search(r"\d+$", name)
    return parent, int(number[0]) if number else -1


def _grouped(items: Iterable[Layer], key: Callable[[Layer], K]) -> dict[K, list[Layer]]:
    groups: dict[K, list[Layer]] = {}
    for x in items:
        groups.setdefault(key(x), []).append(x)
    return groups


def _signature(layer: Layer) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted((role, s.shape) for role, s in layer.parts.items()))


def _form(layer: Layer) -> str:
    """A name without its numbers."""
    return re.sub(r"\d+", "#", layer.name)


def _last(layer: Layer) -> str:
    """What a layer is called within the one around it, parts of attention as ours are; its form where that is a
    number."""
    name = re.sub(r"[\d_]+$", "", layer.name.rpartition(".")[2]).lower()
    return PARTS.get(name, name) or _form(layer)


# --- what is guessed -------------------------------------------------------------------------------------------------


def _guess(draft: Draft, here: Sequence[Layer], there: Sequence[Layer]) -> None:
    """For each layer that is left the next of theirs that has something for its largest variable."""
    for layer in here:
        left = {role: s for role, s in layer.parts.items() if s.text not in draft.pairs}
        if not left:
            continue
        taken = {_bare(p.source) for p in draft.pairs.values()}
        free = [[(role, s) for role, s in x.parts.items() if _bare(s) not in taken] for x in there]
        largest = max(left, key=lambda role: len(left[role].shape))
        group = next((g for g in free if _best(largest, left[largest], g) is not None), [])
        for role, own in left.items():
            found = _best(role, own, group)
            if found is not None:
                group = [pair for pair in group if pair[1] is not found]
                turned = found.shape != own.shape
                draft.pairs[own.text] = Pair(
                    _turned(found) if turned else found, "transposed it fits" if turned else "it fits", False
                )


def _best(role: str, own: Source, group: Iterable[tuple[str, Source]]) -> Source | None:
    """The array that might be a variable."""
    leaf = own.text.rpartition(".")[2]

    def distance(pair: tuple[str, Source]) -> tuple[bool, bool, float]:
        other, source = pair
        return source.shape != own.shape, other != role, -SequenceMatcher(None, leaf, other).ratio()

    shapes = (own.shape, own.shape[::-1]) if len(own.shape) == 2 else (own.shape,)
    fit = [pair for pair in group if pair[1].shape in shapes]
    return min(fit, key=distance)[1] if fit else None


def _turned(source: Source) -> Source:
    """The transposed of a matrix."""
    text = _bare(source) if source.text.endswith(".T") else f"{source.text}.T"
    return replace(source, text=text, shape=source.shape[::-1])


def _bare(source: Source) -> str:
    return source.text.removesuffix(".T")
