"""What comes with an extra: libraries that are imported when something is asked of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..dsl.errors import UnsupportedError, error


def optional(module: str, extra: str, what: str) -> Any:
    """A module of an optional package. Raises UnsupportedError (E0503) where it is not installed: `what` says for what
    which library is needed, `extra` the extra of nnc that brings it."""
    try:
        return import_module(module)
    except ImportError:
        raise error(
            "E0503", f"{what}, which is not installed", kind=UnsupportedError, help=f"pip install 'nnc[{extra}]'"
        ) from None
