"""The command that trains: alone, or in several processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from ...dsl.errors import ArgumentError, NncError, NonFiniteError, error
from ..distributed.launch import launched
from ..logs import KINDS
from ..logs import log as open_log
from ..progress import History, score_of
from ..store.files import sweep
from .display import Display, fitted, metrics_of
from .options import Program, program_options
from .run import Recorder, Start, create, read_source_of, read_start, rewrite_metrics, write_start
from .show import announce, duration, note, number, say, say_next, show_result, width, working
from .together import by_first, first_by_first, threads_of, together

if TYPE_CHECKING:
    from ...dsl.source import Source
    from ..distributed.ranks import Ranks
    from ..model import Model


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
@click.option("--shards", type=click.IntRange(min=1), help="Parts of a batch that processes share (with mpirun: 16).")
@click.option(
    "--reduce", type=click.Choice(("tree", "fast")), default="tree", help="Sums in a fixed order, or in MPI's."
)
@click.option("--trace", metavar="PATH", help="Write the last steps of all processes, for Perfetto and Chrome.")
@together
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
    shards: int | None,
    reduce: str,
    trace: str | None,
    ranks: Ranks | None,
) -> int:
    """Train the model of FILE, or go on with a run (--resume DIR)."""
    if resume is not None:
        if any(v is not None for v in (out, seed, batch, weights, overfit, into, from_, only or None, shards)):
            raise click.UsageError(
                "--resume goes on as the run began: without --out, --seed, --batch, --shards, --weights and --overfit"
            )
        return _resume(Path(resume), program, epochs, threads, check_nan, log, ranks)
    if not program.file:
        raise click.UsageError("missing FILE, or --resume DIR")
    some = into is not None or from_ is not None or bool(only)
    if some and weights is None:
        raise click.UsageError("--into, --from and --only are about --weights: say which")
    if overfit is not None and (out is not None or batch is not None):
        raise click.UsageError("--overfit has one batch and leaves no run: without --out and --batch")
    if overfit is not None and (ranks is not None or shards is not None):
        raise click.UsageError("--overfit is one step again and again: without --shards, in one process")
    from ..train.shards import stages_of
    from ..train.sweep import usual_shards

    usual = None if (launch := launched()) is None else usual_shards(launch.size, reduce == "fast")
    source, net = _opened(program, seed, threads_of(ranks, threads), shards or usual, ranks)
    if weights is not None:
        report = net.load_weights(weights, into=into, from_=from_, only=only)
        if some:
            note(f"weights of {weights}\n{report}")
    spec = net.train_spec  # says that there is no train block before a folder is made
    with working("reading data"):
        shards = shards or spec.shards or usual
        call = first_by_first(ranks, lambda: net.entry("train") if shards is None else stages_of(net, shards)[0])
        net.load_dataset().for_training(spec.inputs, call.wants)  # as for data
    if overfit is not None:
        _overfit(net, overfit, epochs)
        return 0
    for kind in log:
        open_log(kind)  # says that a library is missing before a folder is made
    folder = by_first(ranks, lambda: create(out, Path(program.file).stem))
    begun = None if weights is None else str(Path(weights).absolute())
    start = Start(
        net.seed,
        epochs=epochs,
        batch=batch,
        weights=begun,
        into=into,
        from_=from_,
        only=only,
        log=log,
        shards=shards,
        reduce=reduce,
    )
    if ranks is None or ranks.rank == 0:
        write_start(folder, program, net, start, source)
        rewrite_metrics(folder, [])
    total = spec.epochs if epochs is None else epochs
    how = {"epochs": epochs, "batch": batch, "check_nan": check_nan, "shards": shards, "reduce": reduce, "trace": trace}
    return _fit(net, folder, Recorder(folder), log, total, ranks, **how)


def _opened(
    program: Program,
    seed: int | None,
    threads: int | None,
    shards: int | None,
    ranks: Ranks | None,
    source: Source | None = None,
) -> tuple[Source, Model]:
    """The program and its model, with what training needs compiled."""
    announce(f"compiling {program.file}")
    with working(f"reading {Path(program.file).name}"):
        source = source or program.read()
    needed = ("predict", "train", "evaluate")
    return source, first_by_first(ranks, lambda: program.open(seed, threads, needed, source, shards))


def _overfit(net: Model, count: int, steps: int | None) -> None:
    """Say whether some examples can be fitted (E0631 where not)."""
    from ..check.overfit import FITTED, STEPS, overfit

    def told(step: int, loss: float) -> None:
        if step < 10 or step % 10 ** (len(str(step)) - 1) == 0:  # 0, 5, 10, 20 .. 100, 200 ..
            note(f"step {step:>5}  loss {number(loss)}")

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
    facts = {"fitted": True, "examples": found.examples, "losses": found.losses}
    show_result(facts, lambda: say(f"{found.examples} examples are fitted: {what}"))


def _resume(
    folder: Path,
    changed: Program,
    epochs: int | None,
    threads: int | None,
    check_nan: bool,
    log: tuple[str, ...],
    ranks: Ranks | None,
) -> int:
    """Go on where last.nnw stands; what is given besides (another file, hypers, data) takes the place of what was."""
    program, start = read_start(folder)
    start = replace(start, log=log or start.log)
    by_first(ranks, lambda: sweep(folder))
    source = changed.read() if changed.file else read_source_of(folder, program, start)
    program = replace(
        program,
        file=changed.file or program.file,
        data=changed.data or program.data,
        hyper={**(program.hyper or {}), **(changed.hyper or {})},
    )
    threads = threads_of(ranks, threads) or start.threads
    _, net = _opened(program, start.seed, threads, start.shards, ranks, source)
    net.load(folder / "last.nnw")
    leads = ranks is None or ranks.rank == 0
    progress = net.progress
    if progress is not None:
        if epochs is not None:
            progress.set_epochs(epochs)
        if leads:
            rewrite_metrics(folder, progress.history)
        if progress.epoch >= progress.last or progress.stopped:
            why = f", ended by `{progress.stopped}`" if progress.stopped else ""
            complete = f"{folder} is complete: {progress.done} epochs{why}; a larger --epochs goes further"
            show_result(_facts(folder, History(progress.history, progress.stopped)), lambda: say(complete))
            return 0
    if leads:
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
        ranks,
        resume=True,
        epochs=epochs,
        check_nan=check_nan,
        shards=start.shards,
        reduce=start.reduce,
    )


def _fit(
    net: Model, folder: Path, recorder: Recorder, log: Sequence[str], total: int, ranks: Ranks | None, **settings: Any
) -> int:
    """Train, and leave a checkpoint however it ends; of several processes the first one does."""
    leads = ranks is None or ranks.rank == 0
    display = Display(total)
    _introduce(net, folder, total, ranks)
    with _interrupted_once():
        try:
            with display, ExitStack() as opened:
                logs = [opened.enter_context(open_log(kind, folder)) for kind in log if leads]
                told = [display, recorder, *logs] if leads else []
                history = net.fit(callbacks=told, progress=False, comm=ranks, **settings)
        except KeyboardInterrupt as e:
            if leads:
                recorder.save(net)
            at = net.progress.epoch + 1 if net.progress else 0
            say(f"interrupted in epoch {at}; go on with: nnc train --resume {folder}", err=True)
            return 128 + int(e.args[0] if e.args else signal.SIGINT)
        except NonFiniteError as e:
            if not leads or not _began(net):
                raise
            recorder.save(net)
            d = e.diagnostics[0]
            best = f", that of the best epoch in {folder / 'best.nnw'}" if (folder / "best.nnw").exists() else ""
            kept = f"the last state without it is in {folder / 'last.nnw'}{best}"
            raise NonFiniteError(replace(d, help=(*d.help, kept))) from e
        except (NncError, OSError):  # also of a terminal or a pipe that is gone
            if leads and _began(net):
                recorder.save(net)
            raise
        if leads:
            recorder.save(net)
    _result(net, folder, history, display.hidden)
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


def _introduce(net: Model, folder: Path, total: int, ranks: Ranks | None) -> None:
    """What is trained, on what, and where it goes."""
    signature = net.entry("predict" if "predict" in net.manifest.entries else "train").signature
    inputs, outputs = (
        ", ".join(f"{p.name}: {p.type}" for p in ports) for ports in (signature.inputs, signature.outputs)
    )
    parameters = sum(prod(v.shape) for v in net.manifest.variables if v.role in ("weight", "bias"))
    examples, held_out = net.load_dataset().counts
    note(f"{net.name}({inputs}) -> ({outputs})")
    processes = "" if ranks is None else f"{ranks.size} processes with "
    threads = f"{processes}{net.threads} thread{'' if net.threads == 1 else 's'}"
    note(f"{parameters:,} parameters, {net.manifest.dtype}, {threads}")
    note(f"{total} epochs of {examples:,} examples{f', {held_out:,} more are held out' if held_out else ''}")
    note(f"run {folder}")


def _result(net: Model, folder: Path, history: History, hidden: Sequence[str]) -> None:
    if not history:
        show_result(_facts(folder, history), lambda: say(f"nothing to train: 0 epochs; {folder / 'last.nnw'}"))
        return
    facts = _facts(folder, history)

    def draw() -> None:
        why = f", ended by `{history.stopped}`" if history.stopped else ""
        say(f"{history[-1]['epoch']} epochs in {duration(facts['seconds'])}{why}")
        best = metrics_of(facts["best"])
        shown = {k: v for k, v in best.items() if k.startswith("val_")} or best
        parts = [f"best: epoch {facts['best']['epoch']}", *(f"{k} {number(v)}" for k, v in shown.items())]
        say("  ".join(fitted(enumerate(parts), width())))
        if left_out := [name for name in history[-1] if name in hidden]:
            note(
                f"not shown for want of room: {', '.join(left_out)}\nall metrics in {folder / 'metrics.jsonl'}",
                dim=True,
            )
        say(f"weights in {folder}: {', '.join(facts['weights'])}")
        say_next(*_next(net, folder))

    show_result(facts, draw)


def _facts(folder: Path, history: History) -> dict[str, Any]:
    """What came of a training."""
    scored = [(score, k) for k, row in enumerate(history) if (score := score_of(row)) is not None]
    return {
        "run": str(folder),
        "epochs": history[-1]["epoch"] if history else 0,
        "seconds": sum(row["seconds"] for row in history),
        "stopped": history.stopped,
        "best": history[min(scored)[1]] if scored else history[-1] if history else None,
        "last": history[-1] if history else None,
        "weights": [p.name for p in sorted(folder.glob("*.nnw"))],
    }


def _next(net: Model, folder: Path) -> list[str]:
    """Commands that make something of a run."""
    run = quote(str(folder))
    has_layers = any(v.path.endswith(".W") and len(v.shape) > 1 for v in net.manifest.variables)
    look = [f"nnc look filters {run}"] if has_layers else []
    return [f"nnc eval {run}", *look, f"nnc build {run}"]
