"""What a C program sees of a network's variables: structs, and where in them each field lies.

In: the variables of a manifest, what an entry prepares. Out: `Struct`s. They are laid out by the rules of C, the same
on every target: an element is aligned to its size, and all targets are little-endian; so the bytes of a state may be
moved from one machine to another as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from math import prod
from typing import Union

from ...dsl.record import dataclass, field
from ..manifest import Manifest, Port, Variable
from ..types import tensors
from ..types.stacks import members

BYTES = {**tensors.BYTES, "u64": 8}
LEARNED = ("weight", "bias", "state", "average", "normalize")  # what others than the training step read, too
# the state of training itself, by what C calls it
PROGRESS = {"seed": "train/seed", "step": "train/t", "epoch": "train/epoch", "steps": "train/steps"}
RESERVED = frozenset(
    """alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl const constexpr continue
    decltype default delete do double else enum explicit export extern false float for friend goto if inline int long
    mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
    reinterpret_cast restrict return short signed sizeof static static_assert static_cast struct switch template this
    thread_local throw true try typedef typeid typename typeof union unsigned using virtual void volatile wchar_t while
    xor xor_eq linux unix size_t ptrdiff_t int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t NULL
    """.split()
)


@dataclass(frozen=True, slots=True)
class Field:
    """A member: an array (of no axes: a number), or another struct."""

    name: str
    offset: int
    dtype: str = ""
    shape: tuple[int, ...] = ()
    path: str = ""  # of the variable or of what is prepared; "" for what is neither
    struct: Union[Struct, None] = None

    @property
    def nbytes(self) -> int:
        return self.struct.nbytes if self.struct is not None else BYTES[self.dtype] * prod(self.shape)


@dataclass(slots=True)
class Struct:
    """`name` is what C calls its type, behind the prefix; "" has no name of its own."""

    name: str
    fields: list[Field] = field(default_factory=list)
    end: int = 0
    alignment: int = 1

    def add(self, name: str, dtype: str, shape: tuple[int, ...] = (), path: str = "") -> None:
        if prod(shape):  # C has no arrays of nothing
            self._add(Field(self._free(name), self._next(BYTES[dtype]), dtype, shape, path))

    def nest(self, name: str, struct: Struct) -> None:
        if struct.fields:
            self._add(Field(self._free(name), self._next(struct.alignment), struct=struct))

    @property
    def nbytes(self) -> int:
        return -(-self.end // self.alignment) * self.alignment

    def offset(self, name: str) -> int:
        """Where a member lies; 0 where there is none of that name."""
        return next((f.offset for f in self.fields if f.name == name), 0)

    def places(self, start: int = 0) -> Iterator[tuple[str, int, Field]]:
        """Every path, with its offset from the beginning of the whole and its field."""
        for f in self.fields:
            if f.struct is not None:
                yield from f.struct.places(start + f.offset)
            elif f.path:
                yield f.path, start + f.offset, f

    def _next(self, alignment: int) -> int:
        self.alignment = max(self.alignment, alignment)
        return -(-self.end // alignment) * alignment

    def _add(self, f: Field) -> None:
        self.fields.append(f)
        self.end = f.offset + f.nbytes

    def _free(self, name: str) -> str:
        return free(name, {f.name for f in self.fields})


def free(name: str, taken: Iterable[str]) -> str:
    """A name for C: letters, digits and `_`, no word of C or C++, none of those taken."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)
    name = f"_{name}" if name[:1].isdigit() or not name else name
    name = f"{name}_" if name in RESERVED else name
    tried, k = name, 2
    while tried in taken:
        tried, k = f"{name}_{k}", k + 1
    return tried


def weights(manifest: Manifest) -> Struct:
    """All that predictions read."""
    found = Struct("weights")
    for v in manifest.laid:
        if v.role in LEARNED:
            found.add(_named(v, manifest), v.dtype, v.shape, v.path)
    return found


def state(manifest: Manifest, learned: Struct) -> Struct:
    """All there is to training: `layout`, which says what the bytes are; where training stands; the weights; what the
    optimiser remembers."""
    found, slots = Struct("state"), Struct("")
    declared = {v.path: v for v in manifest.variables}
    found.add("layout", "u64")
    for name, path in PROGRESS.items():
        found.add(name, "i64", path=path if path in declared else "")
    found.nest("weights", learned)
    for v in manifest.laid:
        if v.role not in LEARNED and v.path not in PROGRESS.values():
            slots.add(_named(v, manifest), v.dtype, v.shape, v.path)
    found.nest("optimizer", slots)
    return found


def prepared(read: Iterable[Variable], ports: Iterable[Port], manifest: Manifest) -> Struct:
    """What predictions read as their kernels like it: variables as they are, and what is computed of them."""
    found = Struct("prepared")
    for v in read:
        found.add(_named(v, manifest), v.dtype, v.shape, v.path)
    for p in ports:
        found.add(p.name, p.dtype, tuple(int(str(n)) for n in p.shape), p.name)
    return found


def offsets(struct: Struct, manifest: Manifest) -> dict[str, int]:
    """Where each path begins, from the beginning of the whole; a stack does where the first of its members does."""
    found = {path: at for path, at, _ in struct.places()}
    return found | {s: found[members(s)[0]] for s in manifest.stacks if members(s)[0] in found}


def layout(struct: Struct) -> int:
    """64 bits that say what the bytes of a struct are: the paths, types and places of its fields."""
    text = "\n".join(f"{path} {f.dtype} {list(f.shape)} {at}" for path, at, f in struct.places())
    return digest(text)


def digest(text: str) -> int:
    """64 bits of a text."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little")


def _named(v: Variable, manifest: Manifest) -> str:
    """A path without the model's name: `dense_1_W`, `dense_1_W_m`, `average_dense_1_W`."""
    return v.path.replace(f"{manifest.model}.", "", 1)
