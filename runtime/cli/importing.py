"""The command for what other programs made: import.

What a file is, its suffix says; each kind has a function of its own below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...dsl.errors import DataError, error
from .options import Program, Setting
from .show import print_table, say, show_result


@click.command(name="import")
@click.argument("source", metavar="PATH")
@click.option(
    "-o", "--output", metavar="PATH", required=True, help="The .nn file to write, or of weights the checkpoint."
)
@click.option("--train", is_flag=True, help="With a train block, whose loss fits the output.")
@click.option("--name", default="Net", metavar="NAME", help="What the model is called.")
@click.option("--value", "values", multiple=True, metavar="NAME=N,N", help="An input that is a constant: shape=2,3.")
@click.option("--external", is_flag=True, help="Read arrays from files in the folder of PATH, too.")
@click.option("--like", metavar="FILE", help="The program whose parameters these weights are.")
@click.option("--model", metavar="NAME", help="Which model, where the program has several.")
@click.option("--set", "hyper", type=Setting(), multiple=True, help="A value for a hyper: --set width=256.")
@click.option("--size", "sizes", type=Setting(integer=True), multiple=True, help="A size of parameters: D=4.")
def import_(
    source: str,
    output: str,
    train: bool,
    name: str,
    values: tuple[str, ...],
    external: bool,
    like: str | None,
    model: str | None,
    hyper: tuple[tuple[str, Any], ...],
    sizes: tuple[tuple[str, int], ...],
) -> None:
    """Take what another program made: ONNX, or weights.

    An .onnx file becomes a .nn file that one can read, train and compile, and beside it a .safetensors file of what it
    learned. Everything that cannot be imported is listed at once, and then nothing is written.

    Weights, a .safetensors or .npz file or a folder with an index: the checkpoint of the program --like, where names
    and shapes say for certain which array is which parameter. Where they do not, nothing is written, and rules are
    suggested for `nnc load-weights --map`. No pickle is read.
    """
    if source.endswith(".onnx"):
        if like is not None:
            raise click.UsageError("--like is for weights: an .onnx file says its own program")
        _graph(source, Path(output), train, name, dict(map(_value, values)), external)
        return
    if like is None:
        from ..store.foreign import refuse_pickle

        refuse_pickle(Path(source))
        raise click.UsageError("weights need the program whose parameters they are: --like FILE")
    _weights(Path(source), Path(output), Program(file=like, model=model, hyper=dict(hyper), sizes=dict(sizes)))


def _value(text: str) -> tuple[str, Any]:
    """`shape=2,3`: one number, or a list of them."""
    name, equals, listed = text.partition("=")
    try:
        numbers = [float(n) if "." in n or "e" in n else int(n) for n in listed.strip("[]").split(",")]
    except ValueError:
        numbers = []
    if not name or not equals or not numbers:
        raise click.BadParameter(f"{text!r} is not NAME=N or NAME=N,N", param_hint="--value")
    return name, numbers if "," in listed or "[" in listed else numbers[0]


def _graph(source: str, output: Path, train: bool, name: str, values: dict[str, Any], external: bool) -> None:
    from ..onnx.load import read, save

    if output.suffix != ".nn":
        raise click.UsageError(f"an .onnx file becomes a .nn file, not {output.name}")
    made = read(source, name=name, external=external, values=values, train=train)
    weights = save(made, output)
    n = sum(a.size for a in made.arrays.values())

    def draw() -> None:
        print_table(("operator", "nodes"), [[op, str(k)] for op, k in sorted(made.taken.items())])
        say(f"{sum(made.taken.values())} nodes are {made.text.count(chr(10))} lines in {output}")
        say(f"{n:,} numbers that were learned are in {weights}: `--weights {weights}` reads them")

    show_result({"written": [str(output), str(weights)], "nodes": dict(made.taken), "numbers": n}, draw)


def _weights(source: Path, output: Path, program: Program) -> None:
    from ..store.checkpoint import is_checkpoint
    from ..store.conventions import notes
    from ..store.suggest import load_certain

    if output.suffix == ".nn":
        raise click.UsageError(f"weights become a checkpoint, {output.with_suffix('.nnw').name}, not a program")
    net = program.open(None, 1)
    if source.is_file() and is_checkpoint(source):  # our own: its names are ours
        taken = net.load_weights(source).taken
        net.save(output)
        text = f"{len(taken)} parameters and states of {net.name} from {source} are in {output}"
        show_result({"written": str(output), "taken": list(taken)}, lambda: say(text))
        return
    draft = load_certain(net, source)
    if not draft.is_certain:
        say(draft.text(source.name))
        raise error(
            "E0627",
            f"{source} does not say for certain which of its arrays are {net.name}'s parameters",
            kind=DataError,
            help=f"put the rules above right, then `nnc load-weights {program.file} {source} --map RULES -o {output}`",
        )
    net.save(output)
    about = notes(draft.arrays)

    def draw() -> None:
        say(f"{len(draft.pairs)} parameters and states of {net.name} from {source} are in {output}")
        for note in about:
            say(f"note: {note}")

    show_result({"written": str(output), "taken": list(draft.pairs), "notes": list(about)}, draw)
