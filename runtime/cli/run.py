"""A run's folder: what was trained, how, and with what result.

    runs/NAME-N/ or --out   source.nn      the file as it was
                            run.json       how to make the model again: file, hypers, sizes, seed, epochs ...
                            hypers.json    the value of every hyper
                            metrics.jsonl  one line per epoch
                            last.nnw       where training stands, also in the middle of an epoch
                            best.nnw       the epoch with the least validation loss (training loss without validation)

Checkpoints are written a few times a minute and when training ends, however it ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...dsl.diagnostics import ArgumentError, DataError, error
from ..files import replacing, writing
from .options import Program
from .show import strict

if TYPE_CHECKING:
    from ..arrays import Array
    from ..loop import History
    from ..model import Model

_SAVE_SECONDS = 10.0


def create(out: str | None, name: str) -> Path:
    """A new folder for a run; one that holds a run already is refused."""
    if out is not None:
        folder = Path(out)
        if (folder / "run.json").exists():
            raise error("E0626", f"{folder} holds a run already", kind=ArgumentError,
                        help=f"go on with `nnc train --resume {folder}`, or choose another --out")
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
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


@dataclass(slots=True)
class Recorder:
    """Writes a run while it is trained; a callback of `fit`."""

    folder: Path
    best: float | None = None
    best_variables: dict[str, Array] | None = None  # not yet written
    saved: float = field(default_factory=monotonic)

    def on_epoch(self, history: History, model: Model) -> None:
        row = history[-1]
        with writing(self.folder / "metrics.jsonl"), open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as f:
            f.write(json.dumps(strict(row)) + "\n")
        score = score_of(row)
        if score is not None and (self.best is None or score < self.best):
            self.best = score
            with model.workspace.lock:
                self.best_variables = {path: a.copy() for path, a in model.variables.items()}
        if monotonic() - self.saved > _SAVE_SECONDS:
            self.save(model)

    def save(self, model: Model) -> None:
        """Write last.nnw, and best.nnw if there is a better one."""
        model.save(self.folder / "last.nnw")
        if self.best_variables is not None:
            from ..checkpoint import save

            save(model, self.folder / "best.nnw", self.best_variables)
            self.best_variables = None
        self.saved = monotonic()


def score_of(row: Mapping[str, Any]) -> float | None:
    """What `best` means: the smaller the better."""
    return row.get("val_loss", row.get("loss"))


def write_start(folder: Path, program: Program, model: Model, settings: Mapping[str, Any], text: str) -> None:
    """Everything but the results."""
    hypers = {h.name: h.value for h in model.manifest.hypers}
    data = str(Path(program.data).absolute()) if program.data else None
    run = {**asdict(program), "file": str(Path(program.file).absolute()), "model": model.manifest.model, "data": data,
           "hyper": dict(program.hyper or {}), "sizes": dict(model.manifest.sizes), "seed": model.seed,
           "threads": model.threads, **settings}
    for name, value in (("run.json", run), ("hypers.json", hypers)):
        with replacing(folder / name) as f:
            f.write((json.dumps(value, indent=2) + "\n").encode())
    with replacing(folder / "source.nn") as f:
        f.write(text.encode())


def read_start(folder: Path) -> tuple[Program, dict[str, Any]]:
    """How the model of a run is made again, and the settings of its training."""
    path = folder / "run.json"
    try:
        run = json.loads(path.read_text("utf-8"))
        names = Program.__dataclass_fields__.keys()
        program = Program(**{k: run[k] for k in names})
        return program, {k: v for k, v in run.items() if k not in names}
    except OSError as e:
        raise error("E0622", f"{path}: {(e.strerror or str(e)).lower()}", kind=DataError,
                    help="a run is a folder that `nnc train` made") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise error("E0623", f"{path}: expected the description of a run, found {str(e)[:80]}", kind=DataError) from e


def rewrite_metrics(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Bring metrics.jsonl to where the checkpoint stands: after a crash it may be ahead."""
    with replacing(folder / "metrics.jsonl") as f:
        f.write("".join(json.dumps(strict(row)) + "\n" for row in rows).encode())


def weights_of(path: Path) -> Path:
    """The checkpoint a path names: itself, or the best (or else last) one of a run."""
    if not path.is_dir():
        return path
    for name in ("best.nnw", "last.nnw"):
        if (path / name).exists():
            return path / name
    raise error("E0622", f"{path}: no checkpoint in this run", kind=DataError)
