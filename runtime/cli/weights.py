"""The command about weights from elsewhere: load-weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...dsl.errors import DataError, error
from ..store.files import write
from .options import Program, program_options
from .show import say, show_result

if TYPE_CHECKING:
    from ..model import Model


@click.command(name="load-weights")
@program_options
@click.argument("weights", metavar="WEIGHTS")
@click.option("-o", "--output", metavar="PATH", help="The checkpoint to write.")
@click.option("--map", "rules", metavar="RULES", help="A file of rules: OURS = THEIRS, ignore THEIRS, keep OURS.")
@click.option("--by-position", is_flag=True, help="Take the arrays in their order, not by name.")
@click.option("--suggest", metavar="RULES", help="Only write a draft of rules, by names and shapes.")
@click.option("--transpose", is_flag=True, help="Transpose a matrix whose shape is ours the other way round.")
def load_weights(
    program: Program,
    weights: str,
    output: str | None,
    rules: str | None,
    by_position: bool,
    suggest: str | None,
    transpose: bool,
) -> None:
    """Make a checkpoint of FILE from the weights of another program.

    WEIGHTS is an .npz or .safetensors file.
    The checkpoint serves eval, predict and train with --weights. Everything that does not fit is reported at once, and
    then nothing is written.
    """
    if rules is not None and by_position:
        raise click.UsageError("--map and --by-position are two ways to say the same")
    if (output is None) == (suggest is None):
        raise click.UsageError("say what to write: -o a checkpoint, or --suggest a draft of rules")
    net = program.open(None, 1)
    if suggest is not None:
        _suggest(net, weights, suggest)
        return
    assert output is not None
    try:
        report = net.load_weights(weights, rules, by_position=by_position, transpose=transpose)
    except DataError as e:
        if e.code != "E0627":
            raise
        for d in e.diagnostics:
            say(d.message.removeprefix(f"{weights}: "), err=True)
        n = len(e.diagnostics)
        raise error(
            "E0627",
            f"{weights} does not fit {net.name}: {n} mismatch{'es' if n != 1 else ''}",
            kind=DataError,
            help="`nnc explain E0627` has the rules that say what goes where",
        ) from e
    net.save(output)
    text = f"{len(report.taken)} arrays of {weights} are {net.name}'s parameters and states in {Path(output)}"
    show_result({"written": output, "taken": list(report.taken)}, lambda: say(text))


def _suggest(net: Model, weights: str, path: str) -> None:
    from ..store.suggest import suggest

    draft = suggest(net, Path(weights))
    write(Path(path), draft.text(Path(weights).name).encode())
    guesses = sum(not p.is_certain for p in draft.pairs.values())
    text = (
        f"{len(draft.pairs)} of {len(draft.ours)} parameters and states have a rule in {path}"
        + (f", {guesses} of them a guess" if guesses else "")
        + ": read it, then use it with --map"
    )
    show_result({"written": path, "rules": len(draft.pairs), "guesses": guesses}, lambda: say(text))
