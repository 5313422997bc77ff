"""Memory asked for before it is needed: some of what we call ends the process where it is refused."""

from __future__ import annotations

import mmap

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import ResourceError


def is_refused(nbytes: int) -> bool:
    """Whether the system would refuse so many bytes now."""
    try:
        mmap.mmap(-1, nbytes).close()
    except OSError:
        return True
    return False


def require(nbytes: int, what: str) -> None:
    """Raise `ResourceError` (E0605) where the system would refuse them."""
    if is_refused(nbytes):
        raise ResourceError(Diagnostic("E0605", f"{what} needs {nbytes >> 20} MB more, which the system refused"))
