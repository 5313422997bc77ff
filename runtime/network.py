"""A network's state: its variables, where training stands, and its entry points, compiled when first used.

In: a `Session` (manifest and entry points). It owns one array per variable, 64-byte aligned and never moved, so
that entry points keep pointers to them. What trains, saves, loads and evaluates is told of this and of no more; what
the user holds is a `Model`, the face of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compiler.manifest import ENTRIES, STAGE, TrainSpec
from ..dsl.errors import NncError
from . import settings
from .call.calls import Call, Session, Workspace
from .call.column import Array, Rows
from .call.foreign import is_frame
from .call.messages import argument_error, unknown
from .call.state import State
from .progress import Progress

if TYPE_CHECKING:
    from .data.dataset import Dataset
    from .data.table import Schema


class Network:
    """Safe to use from several threads (calls take turns) and after a fork."""

    __slots__ = (
        "__weakref__",
        "_calls",
        "data_path",
        "dataset",
        "epochs_done",
        "folder",
        "manifest",
        "progress",
        "schema",
        "seed",
        "session",
        "threads",
        "variables",
        "workspace",
    )

    def __init__(
        self,
        session: Session,
        *,
        seed: int | None = None,
        threads: int | None = None,
        folder: str | PathLike[str] = ".",
        dataset: Dataset | None = None,
        data_path: str | None = None,
    ):
        """`folder` is what paths of the train block are relative to; `dataset` is its data where that is loaded
        already, `data_path` takes the place of the path it names. The seed defaults to the one of the train block, the
        threads to the processors this process may use."""
        manifest = session.manifest
        spec = manifest.train
        self.session, self.manifest, self.folder = session, manifest, Path(folder)
        self.seed = settings.seed(seed) if seed is not None else spec.seed if spec else 0
        self.threads = settings.threads(threads)
        self.progress: Progress | None = None  # where an interrupted `fit` stands
        self.epochs_done = 0
        self.schema: Schema | None = None  # of the table it was trained with: columns and classes
        self.data_path = data_path
        self.dataset = dataset if spec is not None and self.seed == spec.seed else None  # the split is of that seed
        self.workspace = Workspace(session.pool, self.threads)
        self._calls: dict[str, Call] = {}
        self.variables = State(manifest.variables, manifest.stacks)
        self._begin()

    def reset(self, seed: int | None = None) -> None:
        """Back to the start: parameters drawn anew from the seed, nothing learned, nothing fitted."""
        if seed is not None:
            self.reseed(settings.seed(seed))
        self.variables.write(dict.fromkeys(self.variables, False))
        self._begin()

    def _begin(self) -> None:
        """From variables that are zeros, as they are again where this is interrupted."""
        if "init" in self.manifest.entries:
            try:
                self.entry("init")(self.seed)
            except BaseException:
                self.variables.write(dict.fromkeys(self.variables, False))
                raise
        scaled = [v.path for v in self.manifest.variables if v.role == "normalize"]
        self.variables.write({path: int(path.endswith("/scale")) for path in scaled})
        spec = self.manifest.train
        self.set_training(seed=self.seed, t=0, epoch=0, steps=max(1, spec.epochs) if spec else 0)
        self.progress, self.epochs_done, self.schema = None, 0, None

    def reseed(self, seed: int) -> None:
        """Shuffle, split and drop out by another seed from now on; the parameters stay."""
        if seed != self.seed:
            self.seed, self.dataset = seed, None

    def entry(self, name: str) -> Call:
        """The entry point, compiled now if it was not yet."""
        call = self._calls.get(name)
        if call is None:
            if name not in self.manifest.entries:
                raise self._no_entry(name)
            call = Call(self.session.entry(name), self.variables, self.workspace, anew=name == "init")
            self._calls[name] = call
        return call

    def stage(self, k: int) -> Call:
        """Stage `k` of a step in shards, see `compiler.passes.cut`."""
        name = f"{STAGE}{k}"
        if name not in self._calls:
            self._calls[name] = Call(self.session.entry(name), self.variables, self.workspace)
        return self._calls[name]

    def _no_entry(self, name: str) -> NncError:
        if name in ("loss", "gradients", "train", "evaluate") and self.manifest.train is None:
            what = f"{self.manifest.model or 'the program'} has no train block, so it has no `{name}`"
            return argument_error("E0609", what)
        if name in ENTRIES:
            return argument_error("E0609", f"{self.manifest.model or 'the program'} has no `{name}`")
        return unknown("export", name, self.exports)

    @property
    def exports(self) -> list[str]:
        """The names of the exports; each is also a method."""
        return [e for e in self.manifest.entries if e not in ENTRIES]

    def given(self, call: Call, args: tuple[Any, ...]) -> Sequence[Any]:
        """The positional arguments of an entry that shares its inputs with the train block: a single frame is taken
        apart by the names of its columns."""
        spec = self.manifest.train
        if len(args) != 1 or spec is None or not is_frame(args[0]):
            return args
        names = [p.name for p in call.signature.inputs]
        if not set(names) <= set(spec.inputs):
            return args
        from .data.frame import columns_for

        return columns_for(args[0], names, call.wants, spec.inputs, self.schema)

    @property
    def train_spec(self) -> TrainSpec:
        """The settings of the train block (E0609 where there is none)."""
        if self.manifest.train is None:
            raise self._no_entry("train")
        return self.manifest.train

    def load_dataset(self) -> Dataset:
        """The data named in the train block, read when first used (E0612 where none is named)."""
        if self.dataset is None:
            from .data.sources import load  # a program that only predicts starts sooner

            spec = self.train_spec
            if spec.data is None:
                if self.data_path is not None:
                    what = f"the train block of {self.name} does not say what kind of data {self.data_path} is"
                    raise argument_error("E0612", what, help='for example `data = csv("...", target = "...")`')
                raise argument_error(
                    "E0612",
                    f"the train block of {self.name} names no data and none was passed",
                    help="pass arrays, or write `data = ...` in the train block",
                )
            self.dataset = load(
                spec.data,
                self.folder,
                validation=spec.validation,
                seed=self.seed,
                override=self.data_path,
                schema=self.schema,
            )
        return self.dataset

    def fit_normalization(self, columns: Mapping[str, Rows], rows: Array | None = None) -> None:
        """Fit mean and scale of the inputs to the training columns, unless that was done before. `rows` is where their
        examples stood in what the user passed."""
        from .data.normalize import fit

        self.variables.write(fit(self.manifest, self.variables, columns, rows))

    def set_training(self, **values: int) -> None:
        """Set those of the counters `train/t`, `train/epoch`, `train/steps`, `train/seed` that the program reads. One
        that is too large to be counted is the largest."""
        read = {path: value for name, value in values.items() if (path := f"train/{name}") in self.variables}
        most = {path: 2 ** (8 * self.variables[path].itemsize - 1) - 1 for path in read}
        self.variables.write({path: min(value, most[path]) for path, value in read.items()})

    def assign(self, values: Mapping[str, Array]) -> None:
        """Set variables by path; the running average of a parameter begins anew with it."""
        averages = {f"average/{path}": array for path, array in values.items()}
        with self.workspace.lock:
            self.variables.write({**values, **{p: a for p, a in averages.items() if p in self.variables}})

    @property
    def name(self) -> str:
        return self.manifest.model or "program"
