"""Commands that run a model on data: train, eval, predict."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...dsl.errors import ArgumentError, NncError, NonFiniteError, error
from ..logs import KINDS
from ..logs import log as open_log
from ..progress import score_of
from ..store.files import sweep
from .options import Program, Setting, program_options
from .run import Recorder, Start, create, read_source_of, read_start, rewrite_metrics, write_start
from .show import say

if TYPE_CHECKING:
    from ...dsl.source import Source
    from ..call.column import Rows
    from ..model import Model
    from ..progress import History


def run_options(f: Any) -> Any:
    """FILE or a run's folder, and the weights to take."""
    weights = click.option("--weights", metavar="PATH", help="A checkpoint or a run (default: FILE, if a run).")
    return program_options(weights(f))


@click.command()
@program_options(required=False)
@click.option("--epochs", type=click.IntRange(min=0), help="How many (default: the train block's).")
@click.option("--batch", type=click.IntRange(min=1), help="Examples in a step (default: the train block's).")
@click.option("--seed", type=int, help="Of parameters, shuffling and dropout (default: the train block's).")
@click.option("--threads", type=click.IntRange(1, 1024), help="At most so many (default: all processors).")
@click.option("--out", metavar="DIR", help="The run's folder (default: runs/NAME-N).")
@click.option("--resume", metavar="DIR", help="Go on with the run in this folder.")
@click.option(
    "--weights", metavar="PATH", help="Begin with the weights of a run, a checkpoint, an .npz or safetensors."
)
@click.option("--into", metavar="PART", help="Of --weights what fits this part of the model: Net.body.")
@click.option("--from", "from_", metavar="PART", help="The part of --weights to take (default: the one of that name).")
@click.option("--only", metavar="PATH", multiple=True, help="Of --weights only this parameter or part; `*` for a name.")
@click.option(
    "--overfit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only try whether N examples can be fitted (--epochs: in how many steps, default 1000).",
)
@click.option(
    "--log", multiple=True, type=click.Choice(list(KINDS)), help="Log metrics there, too; some need their library."
)
@click.option("--check-nan", is_flag=True, help="Look at each step, and for the expression however long it takes.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
def train(
    program: Program,
    epochs: int | None,
    batch: int | None,
    seed: int | None,
    threads: int | None,
    out: str | None,
    resume: str | None,
    weights: str | None,
    into: str | None,
    from_: str | None,
    only: tuple[str, ...],
    overfit: int | None,
    log: tuple[str, ...],
    check_nan: bool,
    quiet: bool,
) -> int:
    """Train the model of FILE as its train block says, or go on with a run (--resume DIR)."""
    if resume is not None:
        if any(v is not None for v in (out, seed, batch, weights, overfit, into, from_, only or None)):
            raise click.UsageError(
                "--resume goes on as the run began: without --out, --seed, --batch, --weights and --overfit"
            )
        return _resume(Path(resume), program, epochs, threads, quiet, check_nan, log)
    if not program.file:
        raise click.UsageError("missing FILE, or --resume DIR")
    some = into is not None or from_ is not None or bool(only)
    if some and weights is None:
        raise click.UsageError("--into, --from and --only are about --weights: say which")
    if overfit is not None and (out is not None or batch is not None):
        raise click.UsageError("--overfit has one batch and leaves no run: without --out and --batch")
    source = program.read()
    net = program.open(seed, threads, ("predict", "train", "evaluate"), source)
    if weights is not None:
        report = net.load_weights(weights, into=into, from_=from_, only=only)
        if some and not quiet:
            say(f"weights of {weights}\n{report}")
    spec = net.train_spec  # says that there is no train block before a folder is made
    net.load_dataset().for_training(spec.inputs, net.entry("train").wants)  # as for data
    if overfit is not None:
        _overfit(net, overfit, epochs, quiet)
        return 0
    for kind in log:
        open_log(kind)  # says that a library is missing before a folder is made
    folder = create(out, Path(program.file).stem)
    begun = None if weights is None else str(Path(weights).absolute())
    start = Start(net.seed, epochs=epochs, batch=batch, weights=begun, into=into, from_=from_, only=only, log=log)
    write_start(folder, program, net, start, source)
    rewrite_metrics(folder, [])
    total = spec.epochs if epochs is None else epochs
    return _fit(net, folder, Recorder(folder), log, total, quiet, epochs=epochs, batch=batch, check_nan=check_nan)


def _overfit(net: Model, count: int, steps: int | None, quiet: bool) -> None:
    """Say whether some examples can be fitted (E0631 where not)."""
    from ..check.overfit import FITTED, STEPS, overfit
    from .show import number

    def told(step: int, loss: float) -> None:
        if not quiet and (step < 10 or step % 10 ** (len(str(step)) - 1) == 0):  # 0, 5, 10, 20 .. 100, 200 ..
            say(f"step {step}  loss {number(loss)}")

    found = overfit(net, count, STEPS if steps is None else steps, told)
    (_, first), *_, (step, last) = found.losses.items()
    what = f"loss {number(first)}, after {step} steps {number(last)}"
    if not found.fitted:
        raise error(
            "E0631",
            f"{found.examples} examples are not fitted: {what}, more than {FITTED:.0%} of it",
            help="; ".join(found.reasons) or None,
            kind=ArgumentError,
        )
    say(f"{found.examples} examples are fitted: {what}")


def _resume(
    folder: Path,
    changed: Program,
    epochs: int | None,
    threads: int | None,
    quiet: bool,
    check_nan: bool,
    log: tuple[str, ...],
) -> int:
    """Go on where last.nnw stands; what is given besides (another file, hypers, data) takes the place of what was."""
    program, start = read_start(folder)
    start = replace(start, log=log or start.log)
    sweep(folder)
    source = changed.read() if changed.file else read_source_of(folder, program, start)
    program = replace(
        program,
        file=changed.file or program.file,
        data=changed.data or program.data,
        hyper={**(program.hyper or {}), **(changed.hyper or {})},
    )
    net = program.open(start.seed, threads or start.threads, ("predict", "train", "evaluate"), source)
    net.load(folder / "last.nnw")
    progress = net.progress
    if progress is not None:
        if epochs is not None:
            progress.set_epochs(epochs)
        rewrite_metrics(folder, progress.history)
        if progress.epoch >= progress.last or progress.stopped:
            why = f", ended by `{progress.stopped}`" if progress.stopped else ""
            say(f"{folder} is complete: {progress.done} epochs{why}; a larger --epochs goes further")
            return 0
    write_start(folder, program, net, start, source)
    scores = [s for s in map(score_of, progress.history if progress else []) if s is not None]
    recorder = Recorder(folder, min(scores, default=None) if (folder / "best.nnw").exists() else None)
    total = progress.last if progress is not None else epochs or net.train_spec.epochs
    return _fit(
        net,
        folder,
        recorder,
        start.log,
        total,
        quiet,
        resume=True,
        epochs=epochs,
        check_nan=check_nan,
    )


def _fit(
    net: Model, folder: Path, recorder: Recorder, log: Sequence[str], total: int, quiet: bool, **settings: Any
) -> int:
    """Train, and leave a checkpoint however it ends."""
    from .display import Display

    display = Display(total, quiet)
    if not quiet:
        say(f"{net!r}\nrun {folder}")
    with _interrupted_once():
        try:
            with display, ExitStack() as opened:
                logs = [opened.enter_context(open_log(kind, folder)) for kind in log]
                history = net.fit(callbacks=[display, recorder, *logs], progress=False, **settings)
        except KeyboardInterrupt as e:
            recorder.save(net)
            at = net.progress.epoch + 1 if net.progress else 0
            say(f"interrupted in epoch {at}; go on with: nnc train --resume {folder}", err=True)
            return 128 + int(e.args[0] if e.args else signal.SIGINT)
        except NonFiniteError as e:
            if not _began(net):
                raise
            recorder.save(net)
            d = e.diagnostics[0]
            best = f", that of the best epoch in {folder / 'best.nnw'}" if (folder / "best.nnw").exists() else ""
            kept = f"the last state without it is in {folder / 'last.nnw'}{best}"
            raise NonFiniteError(replace(d, help=(*d.help, kept))) from e
        except (NncError, OSError):  # also of a terminal or a pipe that is gone
            if _began(net):
                recorder.save(net)
            raise
        recorder.save(net)
    _result(net, folder, history)
    return 0


def _began(net: Model) -> bool:
    """Whether there is anything to keep: data that fail at once leave a folder in which training may begin again."""
    return net.progress is not None and (net.progress.epoch > 0 or net.progress.position > 0)


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM is a KeyboardInterrupt with its number; later ones do nothing, so that the last
    checkpoint is written in peace and the process ends in peace: after one the handlers stay."""
    got: list[int] = []

    def raised(number: int, frame: Any) -> None:
        got.append(number)
        if len(got) == 1:
            raise KeyboardInterrupt(number)

    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    for s, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(s, raised)
    try:
        yield
    finally:
        for s, handler in before.items() if not got else ():
            signal.signal(s, handler)


def _result(net: Model, folder: Path, history: History) -> None:
    from .show import metrics_text

    if not history:
        say(f"nothing to train: 0 epochs; {folder / 'last.nnw'}")
        return
    last = history[-1]
    why = f", ended by `{history.stopped}`" if history.stopped else ""
    shown = {k: v for k, v in last.items() if k not in ("epoch", "seconds")}
    seconds = sum(row["seconds"] for row in history)
    say(f"{last['epoch']} epochs in {seconds:.2f} s{why}: {metrics_text(shown)}")
    say(f"weights in {folder}: " + ", ".join(p.name for p in sorted(folder.glob("*.nnw"))))


@click.command(name="eval")
@run_options
@click.option("--batch", type=click.IntRange(min=1), help="Examples at a time.")
@click.option("--threads", type=click.IntRange(1, 1024))
@click.option("--json", "as_json", is_flag=True, help="The metrics as JSON.")
def evaluate(program: Program, weights: str | None, batch: int | None, threads: int | None, as_json: bool) -> None:
    """The metrics of a trained model on held-out data. FILE is a .nn file (with --weights) or a run's folder."""
    from .show import metrics_text, print_json

    net = trained(program, weights, threads)
    if program.data is not None:
        found = net.evaluate(*_other_data(net, program.data), batch=batch)
    else:
        if net.load_dataset().held_out is None:
            say("note: nothing is held out of these data, so the metrics are of the training examples", err=True)
        found = net.evaluate(batch=batch)
    if as_json:
        print_json(found)
    else:
        say(metrics_text(found))


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
    """Run a trained model on INPUT: a table (.csv, .jsonl), arrays (.npz, .npy), a picture or a folder of them."""
    from .tables import read_inputs, write_outputs

    net = trained(program, weights, threads)
    call = net.entry(entry)
    given = dict(arguments)
    values = call(**read_inputs(Path(data_file), call, net, given), **given)
    outputs = dict(zip([p.name for p in call.signature.outputs], values, strict=True))
    write_outputs(outputs, output, (net.schema.classes if net.schema is not None else None) or ())


def trained(program: Program, weights: str | None, threads: int | None, warn: bool = True) -> Model:
    """The model of a run, or of a file with weights; a file alone is the untrained model, with a warning."""
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
    net = program.open(None, threads, source=source)
    if weights is not None:
        net.load(weights)
    elif warn:
        say("warning: no --weights, so the parameters are as they are before training", err=True)
    return net
