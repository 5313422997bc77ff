"""Who watches a fit that Python began: nobody, a terminal, or a notebook.

In: what the caller wants. Out: a context with the callbacks to tell.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..cli.display import Display
from .bar import Bar


@contextmanager
def watching(wanted: bool | None, last: int) -> Iterator[tuple[Any, ...]]:
    """Callbacks that show a fit which ends with epoch `last`, while the context lasts. None: where somebody looks, in a
    notebook or on a terminal."""
    if wanted is None:
        wanted = in_notebook() or (hasattr(sys.stdout, "isatty") and sys.stdout.isatty())
    if not wanted:
        yield ()
        return
    with Bar() if in_notebook() else Display(last) as shown:
        yield (shown,)


def in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and hasattr(shell, "kernel")
