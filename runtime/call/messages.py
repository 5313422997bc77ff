"""Words that several parts of the runtime use in errors and reports. It imports next to nothing, so that the command
line answers wrong usage quickly."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from ...dsl.errors import ArgumentError, NncError, error


class UnknownNameError(ArgumentError, KeyError):
    """No parameter, input, entry or metric of that name (E0608)."""


def argument_error(
    code: str, message: str, help: str | None = None, kind: type[ArgumentError] = ArgumentError
) -> NncError:
    return error(code, message, help=help, kind=kind)


def unknown(what: str, name: object, known: Sequence[str]) -> NncError:
    """An UnknownNameError with the nearest known name, or the known names, as help."""
    close = get_close_matches(str(name), known, n=1)
    if close:
        help = f"did you mean `{close[0]}`?"
    else:
        help = "there is " + (listed(known) or "none")
    return argument_error("E0608", f"no {what} is named `{name}`", help, kind=UnknownNameError)


def listed(names: Sequence[object]) -> str:
    """`a`, `b`, `c`: the first twelve of them."""
    return ", ".join(f"`{n}`" for n in names[:12]) + (", ..." if len(names) > 12 else "")


def human(n: int) -> str:
    """Bytes as people read them: `36 B`, `4.0 KB`, `1.5 GB`."""
    if n < 1024:
        return f"{n} B"
    value = float(n)
    for unit in ("KB", "MB", "GB", "TB", "PB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.3g} EB"
