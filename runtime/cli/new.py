"""The command that writes a file to begin with: new.

A template is one of the models that ship, as it stands there: read, tested and formatted like all of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote

import click

from ...dsl.errors import ArgumentError, error
from ..call.messages import unknown
from ..store.files import write, writing
from .show import say, say_next, show_result

MODELS = Path(__file__).parents[2] / "models"
TEMPLATES = {  # by what a user would call it: the model that ships, and what it does
    "mlp": ("digits_mlp", "a network with two hidden layers reads handwritten digits"),
    "convnet": ("digits_convnet", "a convolutional network reads handwritten digits"),
    "rnn": ("digits_rnn", "a recurrent network reads digits row by row"),
    "transformer": ("digits_transformer", "a transformer reads digits as a sequence of rows"),
    "autoencoder": ("autoencoder", "digits through eight numbers and back, without labels"),
    "classifier": ("logistic_regression", "classes from the columns of a table (csv)"),
    "regression": ("linear_regression", "a number from the columns of a table (csv)"),
}
_FILE = re.compile(r'"(data/[^"]+)"')  # that a model reads, beside it


@click.command()
@click.argument("template", required=False)
@click.argument("file", required=False)
def new(template: str | None, file: str | None) -> None:
    """Write a file to begin with.

    Without TEMPLATE, say which there are. FILE is TEMPLATE.nn where none is given. A template that reads a table comes
    with it, in a folder `data` beside FILE. Nothing is written over."""
    if template is None:
        names = max(map(len, TEMPLATES))
        listing = "\n".join(f"{name:{names}}  {about}" for name, (_, about) in TEMPLATES.items())
        show_result({name: about for name, (_, about) in TEMPLATES.items()}, lambda: say(listing))
        return
    if template not in TEMPLATES:
        raise unknown("template", template, list(TEMPLATES))
    path = Path(file or f"{template}.nn")
    if path.suffix != ".nn":
        raise click.UsageError(f"a program is a .nn file, not {path.name}")
    made = files_of(template, path)
    for target in made:
        if target.exists():
            raise error("E0626", f"{target} is there already", help="say where the new file goes", kind=ArgumentError)
    for target, content in made.items():
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        write(target, content)
    name = quote(str(path))

    def draw() -> None:
        say("\n".join(f"{target}: {content.count(10)} lines" for target, content in made.items()))
        say_next(f"nnc check {name}", f"nnc train {name}")

    show_result({"template": template, "written": [*map(str, made)]}, draw)


def files_of(template: str, path: Path) -> dict[Path, bytes]:
    """What a template puts at this path, and beside it."""
    text = (MODELS / f"{TEMPLATES[template][0]}.nn").read_bytes()
    beside = _FILE.findall(text.decode())
    return {path: text} | {path.parent / name: (MODELS / name).read_bytes() for name in beside}
