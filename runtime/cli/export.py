"""The command that writes a network in a format of others: export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..call.messages import human
from ..store.files import write
from .options import Program, program_options
from .show import print_table, say, show_result
from .trained import trained

if TYPE_CHECKING:
    from ..model import Model


@click.command()
@program_options
@click.option("--onnx", "onnx", metavar="PATH", required=True, help="The ONNX file to write.")
@click.option("--entry", default="predict", metavar="NAME", help="What to export: predict, or an export of the file.")
@click.option("--train", "trains", is_flag=True, help="The training step: losses, gradients, optimizer.")
@click.option(
    "--with",
    "forms",
    multiple=True,
    type=click.Choice(["python", "web", "npz", "json"]),
    help="With --train, beside PATH: learn.py; learn.mjs and learn.html; the train block's examples.",
)
@click.option("--opset", type=int, default=20, help="Version of ONNX's operators, from 17 on (default: 20).")
@click.option("--weights", metavar="PATH", help="A checkpoint or a run (default: FILE, if a run).")
@click.option("--flat", is_flag=True, help="One graph: layers are written out, not functions.")
@click.option("--license", metavar="TEXT", help="What the file says of its licence: MIT.")
def export(
    program: Program,
    onnx: str,
    entry: str,
    trains: bool,
    forms: tuple[str, ...],
    opset: int,
    weights: str | None,
    flat: bool,
    license: str | None,
) -> None:
    """Write a network as an ONNX graph with its parameters.

    FILE is a .nn file or a run's folder. With --train all that the training step reads and changes is an input, and an
    output `next/PATH`: another program feeds one to the other, and batches. Such a program is learn.py, or for
    onnxruntime-web learn.mjs with a page."""
    if trains and entry != "predict":
        raise click.UsageError("--train is an entry of its own: it takes no --entry")
    if forms and not trains:
        raise click.UsageError("--with is what trains with the training step: it goes with --train")
    entry = "train" if trains else entry
    net = trained(program, weights, 1, warn=not trains)
    files = _beside(net, Path(onnx), forms) if forms else {}
    apart = "python" in forms or "web" in forms
    facts = net.to_onnx(onnx, entry=entry, opset=opset, license=license, functions=not flat, apart=apart)
    for path, data in files.items():
        write(path, data)

    def draw() -> None:
        print_table(("operator", "nodes"), [(name, str(n)) for name, n in facts["nodes"].items()])
        say(f"{onnx}: `{entry}` of {net.name} in opset {opset}, {human(facts['bytes'])}")
        for path, data in files.items():
            say(f"{path}: {human(len(data))}")
        if "python" in forms:
            often = f"--epochs {net.train_spec.epochs}" + (
                f" --batch {net.train_spec.batch}" if net.train_spec.batch else ""
            )
            say(f"try there: python learn.py {Path(onnx).stem} {Path(onnx).stem}.npz {often}")

    show_result({**facts, "beside": [str(path) for path in files]} if forms else facts, draw)


def _beside(net: Model, target: Path, forms: tuple[str, ...]) -> dict[Path, bytes]:
    from ..onnx.export.beside import beside

    return {target.with_name(name): data for name, data in beside(net, target.stem, forms).items()}
