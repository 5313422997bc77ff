"""The command that writes a network in a format of others: export."""

from __future__ import annotations

import click

from ..call.messages import human
from .options import Program, program_options
from .show import print_json, print_table, say
from .train import trained


@click.command()
@program_options
@click.option("--onnx", "onnx", metavar="PATH", required=True, help="The ONNX file to write.")
@click.option("--entry", default="predict", metavar="NAME", help="What to export: predict, or an export of the file.")
@click.option("--train", "trains", is_flag=True, help="The training step: losses, gradients, optimizer.")
@click.option("--opset", type=int, default=20, help="Version of ONNX's operators, from 17 on (default: 20).")
@click.option("--weights", metavar="PATH", help="A checkpoint or a run (default: FILE, if a run).")
@click.option("--flat", is_flag=True, help="One graph: layers are written out, not functions.")
@click.option("--license", metavar="TEXT", help="What the file says of its licence: MIT.")
@click.option("--json", "as_json", is_flag=True, help="What was written, as JSON on stdout.")
def export(
    program: Program,
    onnx: str,
    entry: str,
    trains: bool,
    opset: int,
    weights: str | None,
    flat: bool,
    license: str | None,
    as_json: bool,
) -> None:
    """Write the network of FILE, or of a run's folder, as an ONNX graph with its parameters.

    With --train all that the training step reads and changes is an input, and an output `next/PATH`: another program
    feeds one to the other, and batches."""
    if trains and entry != "predict":
        raise click.UsageError("--train is an entry of its own: it takes no --entry")
    entry = "train" if trains else entry
    net = trained(program, weights, 1, warn=not trains)
    facts = net.to_onnx(onnx, entry=entry, opset=opset, license=license, functions=not flat)
    if as_json:
        print_json(facts)
        return
    print_table(("operator", "nodes"), [(name, str(n)) for name, n in facts["nodes"].items()])
    say(f"{onnx}: `{entry}` of {net.name} in opset {opset}, {human(facts['bytes'])}")
