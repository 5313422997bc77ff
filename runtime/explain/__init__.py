"""A page that explains an entry: from each line of the program to operators, passes, kernels, code and memory.

In: a session, the name of an entry, and what `nnc profile --json` said of it, if it did. Out: HTML that needs nothing
else and no network.
"""

from __future__ import annotations

from .document import document
from .page import page

__all__ = ["document", "page"]
