"""A compiled model: its parameters and the functions that were compiled from it.

In: a `Session` (manifest and entry points, compiled when first used). Out: NumPy arrays. The model owns one array per
variable, 64-byte aligned and never moved, so that entry points keep pointers to them; what it hands out are copies.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import partial
from math import prod
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..compiler.manifest import ENTRIES, Signature, TrainSpec, Variable
from ..compiler.types.tensors import TensorType
from ..dsl.errors import ArgumentTypeError, NncError, error
from . import settings
from .call.arrays import NUMPY, Array, Wanted, aligned, bind, check_bytes, nbytes
from .call.calls import Call, Session, Workspace
from .call.messages import argument_error, unknown

if TYPE_CHECKING:
    from ..compiler.session import Session as PipelineSession
    from .call.column import Rows
    from .data.sources import Dataset
    from .data.table import Schema
    from .data.text import Vocabulary
    from .train.fit import History, Progress


class Model:
    """What `nnc.compile` returns. Safe to call from several threads (calls take turns) and after a fork."""

    __slots__ = ("__weakref__", "_calls", "_tuples", "data_path", "dataset", "epochs_done", "folder", "manifest",
                 "progress", "schema", "seed", "session", "threads", "variables", "workspace")

    def __init__(self, session: Session, *, seed: int | None = None, threads: int | None = None,
                 folder: str | PathLike[str] = ".", dataset: Dataset | None = None, data_path: str | None = None):
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
        self.workspace = Workspace(partial(session.pool, self.threads))
        self._calls: dict[str, Call] = {}
        self._tuples: dict[str, type[tuple[Any, ...]]] = {}
        check_bytes(sum(nbytes(v.shape, NUMPY[v.dtype]) for v in manifest.variables), "the variables")
        self.variables: dict[str, Array] = {
            v.path: aligned(v.shape, NUMPY[v.dtype], f"`{v.path}`") for v in manifest.variables
        }
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Back to the start: parameters drawn anew from the seed, nothing learned, nothing fitted."""
        if seed is not None:
            self.reseed(settings.seed(seed))
        for array in self.variables.values():
            array[...] = 0
        if "init" in self.manifest.entries:
            self.entry("init")(self.seed)
        for v in self.manifest.variables:
            if v.role == "normalize":
                self.variables[v.path][...] = 1 if v.path.endswith("/scale") else 0
        spec = self.manifest.train
        self.set_training(seed=self.seed, t=0, epoch=0, steps=max(1, spec.epochs) if spec else 0)
        self.progress, self.epochs_done, self.schema = None, 0, None

    def reseed(self, seed: int) -> None:
        """Shuffle, split and drop out by another seed from now on; the parameters stay."""
        if seed != self.seed:
            self.seed, self.dataset = seed, None

    # --- calling ------------------------------------------------------------------------------------------------------

    def predict(self, /, *args: Any, **kwargs: Any) -> Any:
        """The model's results in inference mode. NumPy in, NumPy out; several results are a named tuple."""
        return self.call("predict", *args, **kwargs)

    def loss(self, /, *args: Any, **kwargs: Any) -> float:
        """The loss in training mode, as a Python float."""
        return float(self.entry("loss")(*args, **kwargs)[0])

    def gradients(self, /, *args: Any, wrt: str | Iterable[str] | None = None, **kwargs: Any) -> dict[str, Array]:
        """The gradient of the loss by parameter path, or by the names in `wrt`: parameters and inputs."""
        call = self.entry("gradients")
        names = [p.name for p in call.signature.outputs]
        if wrt is not None and not isinstance(wrt, Iterable):
            raise settings.wrong_type("wrt", "a name or several", wrt)
        wrt = [wrt] if isinstance(wrt, str) else list(wrt) if wrt is not None else None
        for name in wrt or ():
            if name not in names:
                raise unknown("parameter or input with a gradient", name, names)
        chosen = wrt if wrt is not None else [n for n in names if n in self.variables]
        found = dict(zip(names, call(*args, **kwargs), strict=True))
        return {n: found[n] for n in chosen}

    def train_step(self, /, *args: Any, **kwargs: Any) -> Any:
        """One step: parameters, state and optimiser state change; returns the loss (or, where learning says its own
        update and has no loss, the metrics by name). A loss that is not finite is returned as it is."""
        call = self.entry("train")
        outputs = call(*args, **kwargs)
        self.progress = None
        names = [p.name for p in call.signature.outputs]
        if names[:1] == ["loss"]:
            return float(outputs[0])
        hidden = {m.name for m in self.train_spec.metrics if m.hidden}
        return {n: a.item() for n, a in zip(names, outputs, strict=True) if n not in hidden}

    def taps(self, /, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """The values of labelled calls by their path, in inference mode."""
        call = self.entry("taps")
        return dict(zip([p.name for p in call.signature.outputs], call(*args, **kwargs), strict=True))

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Any entry point by name: an array, or a named tuple of arrays where there are several results."""
        call = self._calls.get(name) or self.entry(name)
        arrays = call(*args, **kwargs)
        if len(arrays) == 1:
            return arrays[0] if arrays[0].ndim else arrays[0][()]
        return self._named(call.signature)(*(a if a.ndim else a[()] for a in arrays))

    def _named(self, signature: Signature) -> type[tuple[Any, ...]]:
        """The named tuple of an entry with several results."""
        if signature.name not in self._tuples:
            names = [p.name for p in signature.outputs]
            self._tuples[signature.name] = namedtuple(signature.name, names, rename=True)  # type: ignore[misc]
        return self._tuples[signature.name]

    def entry(self, name: str) -> Call:
        """The entry point, compiled now if it was not yet."""
        call = self._calls.get(name)
        if call is None:
            if name not in self.manifest.entries:
                raise self._no_entry(name)
            call = self._calls[name] = Call(self.session.entry(name), self.variables, self.workspace)
        return call

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

    def __getattr__(self, name: str) -> Any:
        if hasattr(type(self), name) or name not in self.exports:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute or export {name!r}")
        return lambda *args, **kwargs: self.call(name, *args, **kwargs)

    @classmethod
    def check_exports(cls, session: PipelineSession) -> None:
        """Raises `SourceError` E0202 where an export has a name that a model has, or that Python asks objects for."""
        names = [e for e in session.manifest.entries if e not in ENTRIES and (e.startswith("_") or hasattr(cls, e))]
        for name in names:
            # where there is no model, functions are entries, but no methods
            if name in (exports := session.program.found.exports):
                why = "names of methods do not begin with `_`" if name.startswith("_") else "every model has that name"
                raise error("E0202", f"an export cannot be called `{name}`: {why}", exports[name][0].span)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.exports})

    # --- training -----------------------------------------------------------------------------------------------------

    @property
    def train_spec(self) -> TrainSpec:
        """The settings of the train block (E0609 where there is none)."""
        if self.manifest.train is None:
            raise self._no_entry("train")
        return self.manifest.train

    def fit(self, /, *args: Any, validation: Any = None, epochs: int | None = None, batch: int | None = None,
            shuffle: bool | None = None, callbacks: Any = (), resume: bool = False,
            **kwargs: Any) -> History:
        """Train on whole arrays, or without arrays on the data named in the train block. See `train.fit`.

        `patience` of the train block watches the validation loss, and where nothing is held out the training loss."""
        from .train.fit import fit

        with self.workspace.training():
            return fit(self, args, kwargs, validation=validation, epochs=epochs, batch=batch, shuffle=shuffle,
                       callbacks=settings.callbacks(callbacks), resume=resume)

    def evaluate(self, /, *args: Any, batch: int | None = None, **kwargs: Any) -> dict[str, float | int]:
        """{metric: value} over whole arrays, in inference mode; without arrays over the test set of the train block's
        data (its validation set where there is no test set). Without `batch` all is one batch where memory allows."""
        from .train.fit import evaluate

        return evaluate(self, args, kwargs, batch=batch)

    def load_dataset(self) -> Dataset:
        """The data named in the train block, read when first used (E0612 where none is named)."""
        if self.dataset is None:
            from .data.sources import load

            spec = self.train_spec
            if spec.data is None:
                if self.data_path is not None:
                    what = f"the train block of {self.name} does not say what kind of data {self.data_path} is"
                    raise argument_error("E0612", what, help='for example `data = csv("...", target = "...")`')
                raise argument_error("E0612", f"the train block of {self.name} names no data and none was passed",
                                     help="pass arrays, or write `data = ...` in the train block")
            self.dataset = load(spec.data, self.folder, validation=spec.validation, seed=self.seed,
                                override=self.data_path, schema=self.schema)
        return self.dataset

    def fit_normalization(self, columns: Mapping[str, Rows], rows: Array | None = None) -> None:
        """Fit mean and scale of the inputs to the training columns, unless that was done before. `rows` is where their
        examples stood in what the user passed."""
        from .data.normalize import fit

        fit(self.manifest, self.variables, columns, rows)

    def set_training(self, **values: int) -> None:
        """Set those of the counters `train/t`, `train/epoch`, `train/steps`, `train/seed` that the program reads. One
        that is too large to be counted is the largest."""
        for name, value in values.items():
            array = self.variables.get(f"train/{name}")
            if array is not None:
                array[...] = min(value, 2 ** (8 * array.itemsize - 1) - 1)

    # --- variables ----------------------------------------------------------------------------------------------------

    @property
    def params(self) -> Variables:
        """Weights and biases by path; assignment copies in and is checked."""
        return Variables(self, ("weight", "bias"), "parameter")

    @property
    def state(self) -> Variables:
        """What layers remember between steps, such as running means."""
        return Variables(self, ("state",), "state")

    @property
    def slots(self) -> Variables:
        """What the optimiser remembers, by `PARAMETER/NAME`."""
        return Variables(self, ("slot",), "optimiser slot")

    def save(self, path: str | PathLike[str]) -> None:
        """Everything that was learned, in one safetensors file; written completely or not at all."""
        from .store.checkpoint import save

        save(self, settings.path(path))

    def load(self, path: str | PathLike[str]) -> None:
        """Take over a checkpoint, or the best one of a run's folder: all of it or, with a `DataError`, nothing."""
        from .store.checkpoint import load

        load(self, settings.path(path))

    def begin_with(self, path: str | PathLike[str]) -> None:
        """Parameters (their averages, where it has any), state and normalisation of a checkpoint, or of a run's best
        one, to be trained anew, perhaps by another optimiser: nothing else changes."""
        from .store.checkpoint import load_learned

        load_learned(self, settings.path(path))

    def load_weights(self, path: str | PathLike[str], rules: str | PathLike[str] | None = None, *,
                     by_position: bool = False, transpose: bool = False) -> int:
        """Parameters and state from an .npz or .safetensors file that is not ours: by name, by the rules of a file, or
        by position. All of them or, with a `DataError` that lists every mismatch, nothing. See `weights`."""
        from .store.weights import load

        return load(self, settings.path(path), rules if rules is None else settings.path(rules),
                    by_position=by_position, transpose=transpose)

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters of the text it was trained on: `encode` and `decode` (E0613 where it was on no text)."""
        from .data.text import Vocabulary

        if self.schema is None or self.schema.characters is None:
            raise argument_error("E0613", f"{self.name} has no vocabulary: it was trained on no text",
                                 help="train it on `text(..)`, or load a checkpoint of such a training")
        return Vocabulary(self.schema.characters)

    def assign(self, values: Mapping[str, Array]) -> None:
        """Set variables by path; the running average of a parameter begins anew with it."""
        with self.workspace.lock:
            for path, array in values.items():
                self.variables[path][...] = array
                if (average := self.variables.get(f"average/{path}")) is not None:
                    average[...] = array

    # --- about it -----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.manifest.model or "program"

    def __repr__(self) -> str:
        with_inputs = ""
        if "predict" in self.manifest.entries:
            ports = self.entry("predict").signature
            with_inputs = (f"({', '.join(f'{p.name}: {p.type}' for p in ports.inputs)})"
                           f" -> ({', '.join(f'{p.name}: {p.type}' for p in ports.outputs)})")
        count = sum(prod(v.shape) for v in self.manifest.variables if v.role in ("weight", "bias"))
        plural = "" if self.threads == 1 else "s"
        return f"<{self.name}{with_inputs}, {count:,} parameters, {self.manifest.dtype}, {self.threads} thread{plural}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise argument_error("E0610", "a compiled model cannot be pickled or copied",
                             help="use `save` and `load` with a model compiled from the same source",
                             kind=ArgumentTypeError)


class Variables(MutableMapping[str, Array]):
    """Some of a model's variables by path. Reading gives a read-only copy, writing checks shape and dtype."""

    def __init__(self, model: Model, roles: tuple[str, ...], what: str):
        self._model, self._what = model, what
        self._of: Mapping[str, Variable] = {v.path: v for v in model.manifest.variables if v.role in roles}

    def _find(self, path: str) -> Variable:
        if path not in self._of:
            raise unknown(self._what, path, list(self._of))
        return self._of[path]

    def __getitem__(self, path: str) -> Array:
        self._find(path)
        with self._model.workspace.lock:
            array = self._model.variables[path].copy()
        array.flags.writeable = False  # so that `params[p][0] = 1` says that it would have no effect
        return array

    def __setitem__(self, path: str, value: Any) -> None:
        v = self._find(path)
        want = Wanted(path, NUMPY[v.dtype], v.shape, TensorType(v.dtype, v.shape))
        (array,), _ = bind(self._model.name, (want,), (value,))
        self._model.assign({path: array})

    def __delitem__(self, path: str) -> NoReturn:
        raise argument_error("E0608", f"the {self._what} `{path}` cannot be deleted", kind=ArgumentTypeError)

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{p!r}: {TensorType(v.dtype, v.shape)}" for p, v in self._of.items()) + "}"
