"""The data formats there are, each a record in a file of its own, loaded where somebody reads data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from .format import Format

NAMES = ("digits", "idx", "cifar10", "csv", "jsonl", "npz", "npy", "text", "images")  # as train blocks call them


@cache
def formats() -> Mapping[str, Format]:
    """The records by name."""
    from .cifar10 import CIFAR10
    from .csv import CSV
    from .digits import DIGITS
    from .idx import IDX
    from .jsonl import JSONL
    from .npy import NPY
    from .npz import NPZ
    from .pictures import IMAGES
    from .text import TEXT

    return {f.name: f for f in (DIGITS, IDX, CIFAR10, CSV, JSONL, NPZ, NPY, TEXT, IMAGES)}


def by_suffix(name: str) -> Format | None:
    """The format of a file that is called so, packed or not."""
    plain = name.removesuffix(".gz")
    return next((f for f in formats().values() if plain.endswith(f.suffixes) and f.suffixes), None)
