"""A run's folder: what was trained, how, and with what result.

    runs/NAME-N/ or --out   source.nn      the file as it was
                            sources/       that file, what it imports and the files of its constants, where there are
                            run.json       how to make the model again: file, hypers, sizes, seed, epochs ...
                            hypers.json    the value of every hyper
                            metrics.jsonl  one line per epoch
                            last.nnw       where training stands, also in the middle of an epoch
                            best.nnw       the epoch with the least validation loss (training loss without validation)

Checkpoints are written after the first epoch, then every few seconds, and when training ends, however it ends. A folder
without last.nnw is not yet a run: training may begin in it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...dsl.errors import ArgumentError, DataError, error
from ...dsl.files import SUFFIXES, digest_of, read_numbers
from ...dsl.source import Source
from ..progress import score_of
from ..store.facts import Scalar, Wrong, check, load, read, short
from ..store.files import append, part, sweep, write, writing
from .options import Program
from .show import say, strict

if TYPE_CHECKING:
    from ..call.column import Array
    from ..model import Model
    from ..progress import History

_SAVE_SECONDS = 5.0


def create(out: str | None, name: str) -> Path:
    """A new folder for a run; one that holds a run already is refused."""
    if out is not None:
        folder = Path(out)
        if (folder / "last.nnw").exists():
            raise error(
                "E0626",
                f"{folder} holds a run already",
                kind=ArgumentError,
                help=f"go on with `nnc train --resume {folder}`, or choose another --out",
            )
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        return folder
    runs = Path("runs")
    n = 1
    with writing(runs):
        runs.mkdir(exist_ok=True)
        while True:
            folder = runs / f"{name}-{n}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                n += 1


@dataclass(frozen=True, slots=True)
class Start:
    """How the training of a run began: beside its program, what run.json says. `weights`, `into`, `from_` and `only`
    are those of the command line."""

    seed: int
    threads: int | None = None
    epochs: int | None = None
    batch: int | None = None
    main: str = "source.nn"  # the copy of the program
    weights: str | None = None  # with which it began
    into: str | None = None
    from_: str | None = None
    only: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    shards: int | None = None
    reduce: str = "tree"

    @property
    def settings(self) -> dict[str, Any]:
        """What the program does not say."""
        return {
            n: getattr(self, n)
            for n in ("epochs", "batch", "weights", "into", "from_", "only", "log", "shards", "reduce")
        }


@dataclass(slots=True)
class Recorder:
    """Writes a run while it is trained; a callback of `fit`."""

    folder: Path
    best: float | None = None
    best_variables: dict[str, Array] | None = None  # not yet written
    saved: float = -inf  # the first epoch is saved at once

    def on_epoch(self, history: History, model: Model) -> None:
        row = history[-1]
        append(part(self.folder, "metrics.jsonl"), (json.dumps(strict(row)) + "\n").encode())
        score = score_of(row)
        if score is not None and (self.best is None or score < self.best):
            self.best = score
            with model.workspace.lock:
                self.best_variables = {path: a.copy() for path, a in model.variables.items()}
        if monotonic() - self.saved > _SAVE_SECONDS:
            self.save(model)

    def save(self, model: Model) -> None:
        """Write last.nnw, and best.nnw if there is a better one."""
        model.save(part(self.folder, "last.nnw"))
        if self.best_variables is not None:
            from ..store.checkpoint import save

            save(model, part(self.folder, "best.nnw"), self.best_variables)
            self.best_variables = None
        self.saved = monotonic()


def write_start(folder: Path, program: Program, model: Model, start: Start, source: Source) -> None:
    """Everything but the results."""
    from ..store.checkpoint import reading

    hypers = {h.name: h.value for h in model.manifest.hypers}
    data = str(Path(program.data).absolute()) if program.data else None
    run = {
        **asdict(program),
        "file": str(Path(program.file).absolute()),
        "model": model.manifest.model,
        "data": data,
        "hyper": dict(program.hyper or {}),
        "sizes": dict(model.manifest.sizes),
        "seed": model.seed,
        "threads": model.threads,
        **start.settings,
    }
    sources = {os.path.abspath(name): text.encode() for name, text in model.manifest.sources.items()}
    for name in model.manifest.files:
        with reading(Path(name)):
            sources[os.path.abspath(name)] = read_numbers(name)
    if len(sources) > 1:  # as they lie to one another, so that imports find them
        top = os.path.commonpath([os.path.dirname(name) for name in sources])
        run["main"] = str(Path("sources", os.path.relpath(os.path.abspath(source.name), top)))
        for name, content in sources.items():
            path = part(folder, Path("sources", os.path.relpath(name, top)))
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write(path, content)
    for name, value in (("run.json", run), ("hypers.json", hypers)):
        write(part(folder, name), (json.dumps(value, indent=2) + "\n").encode())
    write(part(folder, "source.nn"), source.text.encode())


def read_source_of(folder: Path, program: Program, start: Start) -> Source:
    """The program of a run: the file it was made from while that, its imports and the files of its constants are as
    they were, otherwise what the run remembers, with a warning."""
    from ...dsl.parser import read_source

    main = part(folder, start.main)
    stored = read_source(main)
    pairs = [(Path(program.file), main)]
    copies = folder / "sources"
    if main.is_relative_to(copies):
        above = Path(os.path.abspath(program.file)).parents
        depth = len(main.relative_to(copies).parts)
        found = sorted(path for path in copies.rglob("*") if path.is_file() and path.suffix in (".nn", *SUFFIXES))
        names = [path.relative_to(copies) for path in found] if depth <= len(above) else []
        pairs = [(above[depth - 1] / name, part(folder, Path("sources", name))) for name in names]
    for now, then in pairs:
        try:
            read = digest_of if now.suffix in SUFFIXES else lambda path: read_source(path).text
            same = read(now) == read(then)
        except DataError:
            same = False
        if not same:
            say(f"warning: {now} is not as it was when this run began; the run's own copy is used", err=True)
            return stored
    return Source(program.file, stored.text)


def read_start(folder: Path) -> tuple[Program, Start]:
    """How the model of a run is made again, and how its training began (E0622, E0623)."""
    path = part(folder, "run.json")
    if path.exists() and not part(folder, "last.nnw").exists():
        raise error(
            "E0622",
            f"{folder} is not yet a run: its training ended before the first checkpoint",
            kind=DataError,
            help=f"begin again: `nnc train FILE --out {folder}`",
        )
    try:
        run = load(path)
        program = read(Program, run)
        for name, value in (program.hyper or {}).items():
            check(Scalar, value, f"hyper.{name}")
        for name, value in (("file", program.file), ("data", program.data)):
            if "\0" in (value or ""):
                raise Wrong(name, "a name that a file can have", short(value))
        return program, read(Start, run, least=0)
    except OSError as e:
        raise error(
            "E0622",
            f"{path}: {(e.strerror or str(e)).lower()}",
            kind=DataError,
            help="a run is a folder that `nnc train` made",
        ) from e
    except ValueError as e:
        raise error(
            "E0623",
            f"{path}: {e}"
            if isinstance(e, Wrong)
            else f"{path}: expected the description of a run, found {str(e)[:80]}",
            kind=DataError,
        ) from e


def rewrite_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Bring metrics.jsonl to where the checkpoint stands: after a crash it may be ahead."""
    write(part(folder, "metrics.jsonl"), "".join(json.dumps(strict(row)) + "\n" for row in rows).encode())
