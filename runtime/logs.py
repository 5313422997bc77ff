"""The metrics of a training where other tools read them: csv, TensorBoard, MLflow, Weights & Biases.

In: a kind, and the folder of the run. Out: a callback of `fit`, to be closed in the end. Each epoch is there as soon as
it is over. A library is loaded when a log of its kind is made.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dsl.errors import DataError, NncError, error
from .call.messages import unknown
from .extras import optional
from .store.files import append, write

if TYPE_CHECKING:
    from .network import Network
    from .progress import History


class Log:
    """Use as a context, or close it."""

    kind = ""

    def __init__(self, folder: Path):
        self.folder = folder
        self._begun = False

    def begin(self, history: History, network: Network) -> None:
        """The first epoch is over: the history may hold some of before, where a fit was resumed."""

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """What an epoch came to."""
        raise NotImplementedError

    def end(self) -> None:
        """Nothing more comes."""

    def on_epoch(self, history: History, network: Network) -> None:
        """Log the last epoch. Raises `DataError` (E0625) where the library cannot."""
        row = history[-1]
        with self._writing():
            if not self._begun:
                self.begin(history, network)
                self._begun = True
            self.add(row["epoch"], {name: value for name, value in row.items() if name != "epoch"})

    def close(self) -> None:
        """Leave everything where it belongs."""
        if self._begun:
            self._begun = False
            with self._writing():
                self.end()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of the library, whatever they are, as one of ours."""
        try:
            yield
        except NncError:
            raise
        except Exception as e:
            raise error("E0625", f"the log `{self.kind}` cannot be written: {e}", kind=DataError) from e


class Csv(Log):
    """`metrics.csv` in the folder, a column for each metric."""

    kind = "csv"

    def begin(self, history: History, network: Network) -> None:
        self._path = self.folder / "metrics.csv"
        write(self._path, _line(history[-1].keys()), *(_line(row.values()) for row in history[:-1]))

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        append(self._path, _line([epoch, *metrics.values()]))


def _line(values: Any) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


class TensorBoard(Log):
    """Events in the folder, by tensorboardX."""

    kind = "tensorboard"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._library = optional("tensorboardX", "tensorboard", "TensorBoard's files are written by tensorboardX")

    def begin(self, history: History, network: Network) -> None:
        self._writer = self._library.SummaryWriter(str(self.folder), purge_step=history[-1]["epoch"])

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def end(self) -> None:
        self._writer.close()


class Mlflow(Log):
    """A run of MLflow, where its own settings say; the one that is active, where there is one."""

    kind = "mlflow"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._library = optional("mlflow", "mlflow", "runs of MLflow are written by its own library")

    def begin(self, history: History, network: Network) -> None:
        active = self._library.active_run()
        self._own = active is None
        self._run = (active or self._library.start_run(run_name=self.folder.name)).info.run_id
        self._library.log_params(facts(network), run_id=self._run)

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._library.log_metrics(dict(metrics), step=epoch, run_id=self._run)

    def end(self) -> None:
        if self._own:
            self._library.end_run()


class Wandb(Log):
    """A run of Weights & Biases; its files are in the folder."""

    kind = "wandb"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._library = optional("wandb", "wandb", "runs of Weights & Biases are written by its own library")

    def begin(self, history: History, network: Network) -> None:
        self._run = self._library.init(
            project=network.name, name=self.folder.name, dir=str(self.folder), config=facts(network)
        )

    def add(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=epoch)

    def end(self) -> None:
        self._run.finish()


KINDS: Mapping[str, Callable[[Path], Log]] = {made.kind: made for made in (Csv, TensorBoard, Mlflow, Wandb)}


def log(kind: str, folder: str | PathLike[str] = ".") -> Log:
    """A callback that logs a training: `with nnc.log("tensorboard", "runs/a") as told: net.fit(callbacks=told)`. Raises
    ArgumentError (E0608) for another kind, UnsupportedError (E0503) where its library is not installed."""
    if kind not in KINDS:
        raise unknown("log", kind, list(KINDS))
    return KINDS[kind](Path(folder))


def facts(network: Network) -> dict[str, Any]:
    """What is told of a training beside its metrics: the seed, and the value of each hyper."""
    return {"seed": network.seed, **{h.name: h.value for h in network.manifest.hypers}}
