"""The folders that trainings leave: nnc runs list, compare, remove; and a run trained again, for `nnc reproduce`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import click

from ...dsl.errors import ArgumentError, DataError, NncError, error
from ..progress import score_of
from ..store.files import part, writing
from .run import read_source_of, read_start
from .show import number, print_table, say, show_result

if TYPE_CHECKING:
    from ..model import Model
    from ..progress import History

_APART = ("file", "main", "cache", "optimize", "log")  # of the settings, what does not say how a network was trained


@dataclass(frozen=True, slots=True)
class Run:
    """What a folder says of a training: its settings and hypers by name, a row for each epoch, when it was written."""

    folder: Path
    settings: Mapping[str, Any]
    hypers: Mapping[str, Any]
    rows: list[dict[str, Any]]
    written: float

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Raises `DataError`: E0622 where it is no run, E0623 where a file in it is none of ours."""
        program, start = read_start(folder)
        settings = {**asdict(program), **start.settings, "seed": start.seed, "file": program.file}
        hypers = _json(folder, "hypers.json", [_text(folder, "hypers.json")])[0]
        rows = _json(folder, "metrics.jsonl", _text(folder, "metrics.jsonl").splitlines())
        return cls(folder, settings, hypers, rows, part(folder, "last.nnw").stat().st_mtime)

    @property
    def last(self) -> dict[str, Any]:
        """The metrics of the last epoch."""
        return {k: v for k, v in self.rows[-1].items() if k not in ("epoch", "seconds")} if self.rows else {}

    @property
    def best(self) -> tuple[int, float] | None:
        """The epoch with the least loss, of what is held out where there is any, and that loss."""
        scores = [(s, row["epoch"]) for row in self.rows if (s := score_of(row)) is not None]
        return (min(scores)[1], min(scores)[0]) if scores else None

    @property
    def seconds(self) -> float:
        return float(sum(row.get("seconds", 0.0) for row in self.rows))

    def facts(self) -> dict[str, Any]:
        """All of it as data."""
        told = {n: v for n, v in self.settings.items() if n not in _APART}
        best = dict(zip(("epoch", "loss"), self.best, strict=True)) if self.best is not None else None
        return {
            "run": str(self.folder), "file": self.settings["file"], "settings": told, "hypers": dict(self.hypers),
            "epochs": len(self.rows), "seconds": self.seconds, "metrics": self.last, "best": best,
        }  # fmt: skip


def _text(folder: Path, name: str) -> str:
    path = part(folder, name)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise error("E0622", f"{path}: {e}", kind=DataError) from e


def _json(folder: Path, name: str, texts: Iterable[str]) -> list[dict[str, Any]]:
    """The objects that stand in texts."""
    found = []
    for k, text in enumerate(texts):
        try:
            found.append(json.loads(text))
        except ValueError:
            found.append(None)
        if not isinstance(found[-1], dict):
            what = f"{folder / name}: expected an object of JSON in line {k + 1}, found {text[:40]!r}"
            raise error("E0623", what, kind=DataError)
    return found


def found_in(folder: Path) -> list[Run]:
    """The runs in a folder, the newest last; what is none, or not yet one, is left out."""
    runs = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / "run.json").is_file():
            try:
                runs.append(Run.read(path))
            except NncError as e:
                say(f"note: {e.diagnostics[0].message}", err=True)
    return sorted(runs, key=lambda r: r.written)


@click.group(invoke_without_command=True)
@click.pass_context
def runs(context: click.Context) -> None:
    """List, compare and remove what `nnc train` leaves.

    Alone it lists the folders in ./runs."""
    if context.invoked_subcommand is None:
        context.invoke(list_)


@runs.command(name="list")
@click.argument("folder", default="runs", type=click.Path(path_type=Path))
def list_(folder: Path) -> None:
    """The runs in FOLDER (default: runs), the newest last."""
    found = found_in(folder)
    show_result([r.facts() for r in found], lambda: _show_list(folder, found))


def _show_list(folder: Path, found: list[Run]) -> None:
    if found:
        print_table(("run", "program", "written", "epochs", "s", "best", "in epoch", "last"), map(_row, found), left=3)
    else:
        say(f"there are no runs in {folder}; `nnc train FILE` makes one")


def _row(run: Run) -> tuple[str, ...]:
    epoch, score = run.best or ("", "")
    when = datetime.fromtimestamp(run.written).strftime("%Y-%m-%d %H:%M")
    last = "  ".join(f"{k} {number(v)}" for k, v in run.last.items() if not k.startswith("val_"))
    program = Path(run.settings["file"]).name
    return str(run.folder), program, when, str(len(run.rows)), f"{run.seconds:.1f}", number(score), str(epoch), last


@runs.command()
@click.argument("folders", metavar="RUN RUN ..", nargs=-1, required=True, type=click.Path(path_type=Path))
def compare(folders: tuple[Path, ...]) -> None:
    """What runs were trained with, where that differs, and what they came to."""
    if len(folders) < 2:
        raise click.UsageError("it takes two runs to compare")
    found = [Run.read(folder) for folder in folders]
    show_result([r.facts() for r in found], lambda: _show_comparison(found))


def _show_comparison(found: list[Run]) -> None:
    texts = [_text(r.folder, "source.nn") for r in found]
    names = dict.fromkeys(n for r in found for n in r.settings if n not in (*_APART, "hyper"))
    rows = _differing([(n, [r.settings.get(n) for r in found]) for n in names])
    hypers = dict.fromkeys(n for r in found for n in r.hypers)
    rows += _differing([(f"hyper {n}", [r.hypers.get(n) for r in found]) for n in hypers])
    if len(set(texts)) > 1:
        rows.append(("program", _letters(texts)))
    rows.append(("epochs done", [len(r.rows) for r in found]))
    rows += [(n, [r.last.get(n, "") for r in found]) for n in dict.fromkeys(n for r in found for n in r.last)]
    rows.append(("least loss", [r.best[1] if r.best else "" for r in found]))
    rows.append(("seconds", [round(r.seconds, 2) for r in found]))
    cells = [(n, *("" if v is None else number(v) for v in values)) for n, values in rows]
    print_table(("", *(str(r.folder) for r in found)), cells)


def _differing(rows: list[tuple[str, list[Any]]]) -> list[tuple[str, list[Any]]]:
    return [(name, values) for name, values in rows if any(v != values[0] for v in values)]


def _letters(texts: list[str]) -> list[Any]:
    """A letter for each text: the same for the same."""
    kinds = list(dict.fromkeys(texts))
    return [chr(ord("A") + kinds.index(t)) for t in texts]


@runs.command()
@click.argument("folders", metavar="RUN ..", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Without asking.")
def remove(folders: tuple[Path, ...], yes: bool) -> None:
    """Remove runs, with all that was learned in them."""
    for folder in folders:
        if folder.is_symlink() or not part(folder, "run.json").is_file():
            what = f"{folder}: expected the folder of a run, found {'a link' if folder.is_symlink() else 'none'}"
            raise error("E0622", what, help="a run is a folder that `nnc train` made", kind=ArgumentError)
    for folder in folders:
        if yes or click.confirm(f"remove {folder}?"):
            with writing(folder):
                rmtree(folder)
            say(f"{folder} is removed")


# --- again ------------------------------------------------------------------------------------------------------------


def train_again(folder: Path) -> None:
    """Train what a run is of from its beginning, and say whether it comes to the same bits (E0623 where not)."""
    program, start = read_start(folder)
    net = program.open(start.seed, start.threads, ("train", "evaluate"), read_source_of(folder, program, start))
    net.load(part(folder, "last.nnw"))
    then, progress = {path: a.copy() for path, a in net.variables.items()}, net.progress
    if progress is None or progress.position:
        what = f"{folder} ends in the middle of an epoch, which is not trained again"
        raise error("E0623", what, help=f"`nnc train --resume {folder}` goes on to its end", kind=DataError)
    rows = progress.history
    net.reset(start.seed)
    if start.weights is not None:
        net.load_weights(start.weights, into=start.into, from_=start.from_, only=start.only)

    def enough(history: History, _: Model) -> bool:
        return len(history) >= len(rows)

    epochs = progress.last - progress.epoch + progress.done
    say(f"training {folder} again: {len(rows)} epochs")
    history = net.fit(epochs=epochs if rows else 0, batch=start.batch, shards=start.shards, callbacks=enough)
    differ = [path for path, a in net.variables.items() if a.tobytes() != then[path].tobytes()]
    first = next((b["epoch"] for a, b in zip(history, rows, strict=False) if _timeless(a) != _timeless(b)), None)
    if differ or first is not None or len(history) != len(rows):
        import numpy as np

        most = max((float(np.max(np.abs(net.variables[p] - then[p]))) for p in differ), default=0.0)
        where = f"from epoch {first} on" if first is not None else f"in {', '.join(differ[:4])}"
        raise error(
            "E0623",
            f"{folder}: expected the same bits, found others {where}, in variables by {most:.3g} at most",
            help="other data, another program, another number of epochs on the way, or another version of nnc",
            kind=DataError,
        )
    say(f"{folder}: the same, bit for bit: {len(rows)} epochs, {len(then)} variables")


def _timeless(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != "seconds"}
