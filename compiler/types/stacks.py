"""Stacks: the equal variables of the turns of a loop as one, with an axis in front for the turns.

The path of a stack has first, last and stride where those of its members have a number: the members of
`Net.dense_2:300:1.W` are `Net.dense_2.W`, `Net.dense_3.W` to `Net.dense_300.W`. What is composed of such a path is a
stack as well: `Net.dense_2:300:1.W/m`, `average/Net.dense_2:300:1.W`. Any other path is that of one variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby

from .tensors import TensorType

_TURNS = re.compile(r"(\d+):(\d+):(\d+)")


def numbers(first: int, turns: int, stride: int) -> str:
    """What stands in the path of a stack in the number's place."""
    return f"{first}:{first + (turns - 1) * stride}:{stride}"


def is_stack(path: str) -> bool:
    return ":" in path


@lru_cache(4096)
def members(path: str) -> tuple[str, ...]:
    """The paths of the variables that are stored at a path, in order."""
    found = _TURNS.search(path)
    if found is None:
        return (path,)
    first, last, stride = map(int, found.groups())
    before, behind = path[: found.start()], path[found.end() :]
    return tuple([f"{before}{n}{behind}" for n in range(first, last + 1, stride)])


def runs(paths: Iterable[str]) -> Iterator[list[str]]:
    """Paths in their order, the stacks of one loop together: where turns are written out, its variables come turn by
    turn. Between two loops of one layer stands the first turn of the second."""
    for _, run in groupby(paths, _loop):
        yield list(run)


def _loop(path: str) -> tuple[str, int]:
    """The layer that repeats, and how often; of a variable that is in no stack its own path."""
    return (_TURNS.split(path)[0].rpartition(".")[0], len(members(path))) if is_stack(path) else (path, 1)


def stacked(path: str, member: TensorType) -> TensorType:
    """The type of what is stored at a path, of variables of one type."""
    return member.with_shape((len(members(path)), *member.shape)) if is_stack(path) else member
