"""`%%nn NAME`: a cell of a notebook that is a program. `%load_ext nnc` makes it known.

In: the line of the magic and the text of its cell. Out: a model, bound to the name. What is wrong with the text is
shown as the command line shows it, and ends the run of the notebook.
"""

from __future__ import annotations

import shlex
from ast import literal_eval
from typing import Any

from ..dsl.errors import NncError
from ..dsl.source import Source
from .api import compile
from .call.messages import argument_error
from .extras import optional
from .model import Model

_USAGE = "write `%%nn net`, with values for hypers behind it: `%%nn net width=64`"


def load_ipython_extension(shell: Any) -> None:
    """Called by `%load_ext nnc`."""

    def nn(line: str, cell: str) -> Model:
        """%%nn NAME [HYPER=VALUE ..]: compile the cell to a model of that name."""
        shown = optional("IPython.display", "notebook", "a notebook is shown by IPython")
        try:
            name, hypers = read_line(line)
            model = compile(
                Source(f"%%nn {name}", f"\n{cell}"), hyper=hypers
            )  # lines count as the notebook counts them
        except NncError as e:
            shown.display(shown.HTML(e._repr_html_()))
            e.was_shown = True
            raise
        shell.user_ns[name] = model
        return model

    shell.register_magic_function(nn, "cell", "nn")


def read_line(line: str) -> tuple[str, dict[str, Any]]:
    """The name of the model, and values of hypers (E0604)."""
    name, *settings = shlex.split(line) or [""]
    hypers = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise argument_error("E0604", f"`{setting}` is no NAME=VALUE", _USAGE)
        try:
            hypers[key] = literal_eval(text)
        except (ValueError, SyntaxError):
            hypers[key] = text
    if not name.isidentifier():
        raise argument_error("E0604", f"`{name}` is no name for a model" if name else "the model has no name", _USAGE)
    return name, hypers
