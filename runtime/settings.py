"""Settings passed from Python, checked where they come in: what does not fit is named with what was wanted and got."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..dsl.errors import ArgumentTypeError, NncError
from .call.column import Array
from .call.foreign import LIKE
from .call.messages import argument_error, unknown

MAX_SEED = 2**31 - 1
LEAST: Mapping[str, int] = {
    "epochs": 0,
    "batch": 1,
    "seed": 0,
    "shards": 1,
}  # of a train block's settings that are passed, too
D = TypeVar("D")
_TENSOR_TYPE = re.compile(r"\b(?:f32|f64|i32|i64|bool)\[([^\]]*)\]")


def wrong_type(name: str, wanted: str, value: Any) -> NncError:
    return argument_error("E0602", f"{name} must be {wanted}, got {type(value).__name__}", kind=ArgumentTypeError)


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """An int (E0602) in a range (E0603)."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise wrong_type(name, "an int", value)
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"between {least} and {_power(most)}"
        raise argument_error("E0603", f"{name} must be {allowed}, got {value}")
    return int(value)


def real(name: str, value: Any, least: float | None = None, above: float | None = None) -> float:
    """A finite number (E0602) that is at least one bound or above another (E0603)."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise wrong_type(name, "a number", value)
    allowed = "finite"
    if isfinite(value) and least is not None:
        allowed = f"at least {least}"
    elif isfinite(value) and above is not None:
        allowed = f"above {above}"
    if not isfinite(value) or (least is not None and value < least) or (above is not None and value <= above):
        raise argument_error("E0603", f"{name} must be {allowed}, got {value}")
    return float(value)


def ends(low: Any, high: Any) -> tuple[float, float]:
    """The least and the greatest value of a range (E0602, E0603)."""
    low, high = real("low", low), real("high", high)
    if not low < high:
        raise argument_error("E0603", f"low must be less than high, got {low} and {high}")
    return low, high


def _power(n: int) -> str:
    return "2^31-1" if n == MAX_SEED else str(n)


def seed(value: Any) -> int:
    return integer("seed", value, LEAST["seed"], MAX_SEED)


def training(name: str, value: Any, default: D) -> int | D:
    """A setting of the train block as it is passed, or as that has it."""
    return default if value is None else integer(name, value, LEAST[name])


def threads(value: Any) -> int:
    """How many: as given, or the processors this process may use."""
    if value is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return integer("threads", value, 1, 1024)


def text(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, str):
        raise wrong_type(name, "a text", value)


def names(name: str, value: Any) -> list[str]:
    """A name or several."""
    if isinstance(value, str):
        return [value]
    found: list[str] = list(value) if isinstance(value, Iterable) else []
    if not isinstance(value, Iterable) or not all(isinstance(one, str) for one in found):
        raise wrong_type(name, "a name or several", value)
    return found


def path(value: Any) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise wrong_type("path", "a text or a path", value)
    return Path(value)


def choice(name: str, value: Any, choices: Sequence[str]) -> None:
    text(name, value)
    if value not in choices:
        wanted = " or ".join(f'"{c}"' for c in choices)
        raise argument_error("E0603", f"{name} must be {wanted}, got {value!r}")


def left_out(what: str, **given: Any) -> None:
    """What does not go together with something is not given (E0604)."""
    for name, value in given.items():
        if value is not None:
            raise argument_error("E0604", f"{what} takes no `{name}`, got {value!r}", kind=ArgumentTypeError)


def like(value: Any) -> Callable[[Array], Any]:
    """What makes an array a result of the library that is named."""
    choice("like", value, list(LIKE))
    return LIKE[value]


def hypers(value: Any) -> None:
    """A mapping of names to numbers, bools or texts; which names there are the program knows."""
    for name, v in _items("hyper", value):
        if not isinstance(v, bool | int | float | str):
            raise wrong_type(f"hyper `{name}`", "a number, a bool or a text", v)


def sizes(value: Any, sources: Mapping[str, str] | None = None) -> None:
    """A mapping of names to sizes; with `sources`, the texts of a program, each name is one of a tensor type there."""
    items = _items("sizes", value)
    for name, n in items:
        integer(f"size `{name}`", n, 0)
    if not items or sources is None:
        return
    types = [axes for source in sources.values() for axes in _TENSOR_TYPE.findall(source)]
    known = sorted({n for axes in types for n in re.findall(r"[^\W\d]\w*", axes)})
    for name, _ in items:
        if name not in known:
            raise unknown("size", name, known)


def _items(what: str, value: Any) -> list[tuple[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        raise wrong_type(what, "a mapping by name", value)
    for name in value:
        if not isinstance(name, str):
            raise wrong_type(f"a name in {what}", "a text", name)
    return list(value.items())


def callbacks(value: Any) -> tuple[Any, ...]:
    """One callback or several: functions, or objects with `on_epoch` or `on_progress`."""
    if _is_callback(value):
        return (value,)
    try:
        found = tuple(value)
    except TypeError:
        raise wrong_type("callbacks", "a callback or several", value) from None
    for c in found:
        if not _is_callback(c):
            raise wrong_type("a callback", "a function, or an object with on_epoch or on_progress", c)
    return found


def _is_callback(value: Any) -> bool:
    return callable(value) or hasattr(value, "on_epoch") or hasattr(value, "on_progress")
