"""The data formats there are, each a record in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping

from .cifar10 import CIFAR10
from .csv import CSV
from .digits import DIGITS
from .format import Format
from .idx import IDX
from .jsonl import JSONL
from .npy import NPY
from .npz import NPZ
from .pictures import IMAGES
from .text import TEXT

FORMATS: Mapping[str, Format] = {f.name: f for f in (DIGITS, IDX, CIFAR10, CSV, JSONL, NPZ, NPY, TEXT, IMAGES)}


def names() -> tuple[str, ...]:
    """As train blocks call them."""
    return tuple(FORMATS)


def by_suffix(name: str) -> Format | None:
    """The format of a file that is called so, packed or not."""
    plain = name.removesuffix(".gz")
    return next((f for f in FORMATS.values() if plain.endswith(f.suffixes) and f.suffixes), None)
