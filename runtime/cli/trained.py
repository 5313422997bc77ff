"""Commands that run a trained model on data: eval, predict; and what opens one for any command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from .options import Program, Setting, program_options
from .run import read_source_of, read_start
from .show import duration, is_on, note, number, print_json, say, show_result, working

if TYPE_CHECKING:
    from ...dsl.source import Source
    from ..call.column import Rows
    from ..model import Model


def run_options(f: Any) -> Any:
    """FILE or a run's folder, and the weights to take."""
    weights = click.option("--weights", metavar="PATH", help="A checkpoint or a run (default: FILE, if a run).")
    return program_options(weights(f))


@click.command(name="eval")
@run_options
@click.option("--batch", type=click.IntRange(min=1), help="Examples at a time.")
@click.option("--threads", type=click.IntRange(1, 1024))
def evaluate(program: Program, weights: str | None, batch: int | None, threads: int | None) -> None:
    """Measure a trained model on held-out data.

    FILE is a .nn file (with --weights) or a run's folder."""
    net = trained(program, weights, threads, entries=("evaluate",))
    if program.data is None and net.load_dataset().held_out is None:
        say("note: nothing is held out of these data, so the metrics are of the training examples", err=True)
    with working("evaluating"):
        start = perf_counter()
        found = net.evaluate(*(_other_data(net, program.data) if program.data is not None else ()), batch=batch)
    took = perf_counter() - start

    def draw() -> None:
        wide = max(map(len, found), default=0)
        say("\n".join(f"{name:{wide}}  {number(value)}" for name, value in found.items()))
        note(f"in {duration(took)}", dim=True)

    show_result(found, draw)


def _other_data(net: Model, path: str) -> list[Rows]:
    """All examples of another file, or its test set where it has one."""
    from ..data.sources import load

    spec = net.train_spec
    if spec.data is None:
        return net.load_dataset().for_evaluation((), ())  # says what is missing
    dataset = load(spec.data, net.folder, validation=None, seed=net.seed, override=path, schema=net.schema)
    return dataset.for_evaluation(spec.inputs, net.entry("evaluate").wants)


@click.command()
@run_options
@click.argument("data_file", metavar="INPUT")
@click.option("-o", "--output", metavar="PATH", help="A .csv, .npz or .npy file (default: csv on stdout).")
@click.option("--entry", default="predict", metavar="NAME", help="Another entry point, such as an export.")
@click.option("--arg", "arguments", type=Setting(), multiple=True, help="A value for a scalar input: --arg k=0.5.")
@click.option("--threads", type=click.IntRange(1, 1024))
def predict(
    program: Program,
    weights: str | None,
    data_file: str,
    output: str | None,
    entry: str,
    arguments: tuple[tuple[str, Any], ...],
    threads: int | None,
) -> None:
    """Run a trained model on INPUT.

    INPUT is a table (.csv, .jsonl), arrays (.npz, .npy), a picture or a folder of them."""
    from .tables import read_inputs, write_outputs

    net = trained(program, weights, threads, entries=(entry,))
    call = net.entry(entry)
    given = dict(arguments)
    with working("predicting"):
        values = call(**read_inputs(Path(data_file), call, net, given), **given)
    outputs = dict(zip([p.name for p in call.signature.outputs], values, strict=True))
    classes = (net.schema.classes if net.schema is not None else None) or ()
    if output is None and is_on("json"):
        print_json({"outputs": {name: a.tolist() for name, a in outputs.items()}, "classes": list(classes)})
        return
    write_outputs(outputs, output, classes)
    if output is not None:
        show_result({"written": output}, lambda: None)


def trained(
    program: Program,
    weights: str | None,
    threads: int | None,
    warn: bool = True,
    entries: tuple[str, ...] = (),
) -> Model:
    """The model of a run, or of a file with weights; a file alone is the untrained model, with a warning. `entries` are
    those that will be needed."""
    folder = Path(program.file)
    source: Source | None = None
    if folder.is_dir():
        if program.hyper or program.sizes or program.model:
            raise click.UsageError("--set, --size and --model are for a .nn file: a run has those it was trained with")
        run, start = read_start(folder)
        stored = program.weights_dtype if program.weights_dtype != "f32" else run.weights_dtype
        program = replace(run, data=program.data or run.data, cache=program.cache, weights_dtype=stored)
        source = read_source_of(folder, run, start)
        weights = weights or str(folder)
    net = program.open(None, threads, entries, source)
    if weights is not None:
        net.load(weights)
    elif warn:
        say("warning: no --weights, so the parameters are as they are before training", err=True)
    return net
