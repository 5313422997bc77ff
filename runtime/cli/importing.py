"""The command for what other programs made: import.

What a file is, its suffix says; each kind has a function of its own below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...dsl.errors import DataError, error
from .options import Program, Setting
from .show import say


@click.command(name="import")
@click.argument("source", metavar="PATH")
@click.option("-o", "--output", metavar="PATH", required=True, help="The checkpoint to write.")
@click.option("--like", metavar="FILE", help="The program whose parameters these weights are.")
@click.option("--model", metavar="NAME", help="Which model, where the program has several.")
@click.option("--set", "hyper", type=Setting(), multiple=True, help="A value for a hyper: --set width=256.")
@click.option("--size", "sizes", type=Setting(integer=True), multiple=True, help="A size of parameters: D=4.")
def import_(
    source: str,
    output: str,
    like: str | None,
    model: str | None,
    hyper: tuple[tuple[str, Any], ...],
    sizes: tuple[tuple[str, int], ...],
) -> None:
    """Take what another program made at PATH.

    Weights, a .safetensors or .npz file or a folder with an index: the checkpoint of the program --like, where names
    and shapes say for certain which array is which parameter. Where they do not, nothing is written, and rules are
    suggested for `nnc load-weights --map`. No pickle is read.
    """
    if like is None:
        raise click.UsageError("weights need the program whose parameters they are: --like FILE")
    _weights(Path(source), Path(output), Program(file=like, model=model, hyper=dict(hyper), sizes=dict(sizes)))


def _weights(source: Path, output: Path, program: Program) -> None:
    from ..store.suggest import load_certain

    net = program.open(None, 1)
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
    say(f"{len(draft.pairs)} parameters and states of {net.name} from {source} are in {output}")
