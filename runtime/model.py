"""A compiled model: the face of a network, and the functions that were compiled from it.

In: what a `Network` is made of. Out: NumPy arrays. What it hands out are copies. The rooms that train and store are
loaded when first used, so that a program that only predicts starts sooner.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache, partial
from html import escape
from math import prod
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn

from numpy import ndarray

from ..compiler.manifest import ENTRIES, Variable
from ..compiler.types.tensors import TensorType
from ..dsl.errors import ArgumentTypeError, NncError, error
from . import settings
from .call.arrays import NUMPY, Wanted, bind, is_stream
from .call.calls import Call
from .call.column import Array
from .call.messages import argument_error, unknown
from .network import Network
from .progress import History

if TYPE_CHECKING:
    from ..compiler.elaborate import Program
    from ..compiler.session import Session as PipelineSession
    from .call.bound import Bound
    from .data.text import Vocabulary
    from .picture import Picture
    from .store.transfer import Transfer
    from .summary import Summary


class Model(Network):
    """What `nnc.compile` returns. Safe to call from several threads (calls take turns) and after a fork."""

    __slots__ = ()

    # --- calling ------------------------------------------------------------------------------------------------------

    def predict(self, /, *args: Any, **kwargs: Any) -> Any:
        """The model's results in inference mode; several are a named tuple. What is passed may be arrays, tensors of
        other libraries, columns, or one frame with columns by name; results are arrays, or `like = "torch"`, "jax"."""
        return self.call("predict", *args, **kwargs)

    def loss(self, /, *args: Any, **kwargs: Any) -> Any:
        """The loss in training mode, as a Python float; several that are minimized, by name."""
        call = self.entry("loss")
        outputs = self._run(call, args, kwargs)
        if len(outputs) == 1:
            return float(outputs[0])
        return {p.name: float(a) for p, a in zip(call.signature.outputs, outputs, strict=True)}

    def gradients(
        self, /, *args: Any, wrt: str | Iterable[str] | None = None, like: str = "numpy", **kwargs: Any
    ) -> dict[str, Any]:
        """The gradient of the loss by parameter path, or by the names in `wrt`: parameters and inputs. Of several
        losses each parameter has that of the one that trains it, and an input that of their sum."""
        make = settings.like(like)
        call = self.entry("gradients")
        names = call.names
        wrt = settings.names("wrt", wrt) if wrt is not None else None
        for name in wrt or ():
            if name not in names:
                raise unknown("parameter or input with a gradient", name, names)
        chosen = wrt if wrt is not None else [n for n in names if n in self.variables]
        found = call.named(self._run(call, args, kwargs))
        return {n: make(found[n]) for n in chosen}

    def train_step(self, /, *args: Any, **kwargs: Any) -> Any:
        """One step: parameters, state and optimiser state change; returns the loss (or, where there are several or
        none, losses and metrics by name). A loss that is not finite is returned as it is."""
        call = self.entry("train")
        outputs = self._run(call, args, kwargs)
        self.progress = None
        names = [p.name for p in call.signature.outputs]
        if len(self.train_spec.losses) == 1:
            return float(outputs[0])
        hidden = {m.name for m in self.train_spec.metrics if m.hidden}
        return {n: a.item() for n, a in zip(names, outputs, strict=True) if n not in hidden}

    def taps(self, /, *args: Any, like: str = "numpy", **kwargs: Any) -> dict[str, Any]:
        """The values of labelled calls by their path, in inference mode."""
        call, make = self.entry("taps"), settings.like(like)
        values = map(make, self._run(call, args, kwargs))
        return dict(zip([p.name for p in call.signature.outputs], values, strict=True))

    def call(self, name: str, /, *args: Any, like: str = "numpy", **kwargs: Any) -> Any:
        """Any entry point by name: an array, or a named tuple of arrays where there are several results; or tensors
        `like` those of "torch" or "jax"."""
        call = self._calls.get(name) or self.entry(name)
        make = None if like == "numpy" else settings.like(like)
        arrays = self._run(call, args, kwargs) if args and type(args[0]) is not ndarray else call(*args, **kwargs)
        if make is not None:
            results = [make(a) for a in arrays]
        elif len(arrays) == 1:
            return arrays[0] if arrays[0].ndim else arrays[0][()]
        else:
            results = [a if a.ndim else a[()] for a in arrays]
        if len(results) == 1:
            return results[0]
        return _results(call.signature.name, tuple([p.name for p in call.signature.outputs]))(*results)

    def _run(self, call: Call, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Array]:
        """The results of an entry; a frame is taken apart."""
        return call(*(args if kwargs else self.given(call, args)), **kwargs)

    def bind(self, name: str, /, *args: Any, out: Any = None, like: str = "numpy", **kwargs: Any) -> Bound:
        """An entry point with its arrays bound: `run = net.bind("predict", x)`, then `y = run()`, in microseconds less
        than `net.predict(x)`. What `x` holds may change between calls. The results are in the same arrays after every
        call, those of `out` where they are given; these overlap neither inputs nor one another. Both may be tensors in
        the processor's memory, and results are tensors `like` those of "torch". What a call would have to convert or
        copy is refused (E0602), and so is an entry that writes variables (E0609)."""
        from .call.bound import Bound

        settings.text("name", name)
        call = self.entry(name)
        if call.signature.updates:
            help = "`train_step` and `fit` are calls of it" if name == "train" else None
            raise argument_error("E0609", f"`{name}` is not bound: it writes variables", help)
        names = tuple([p.name for p in call.signature.outputs])
        return Bound(call, args, kwargs, out, _results(call.signature.name, names), settings.like(like))

    def __getattr__(self, name: str) -> Any:
        if hasattr(type(self), name) or name not in self.exports:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute or export {name!r}")
        return lambda *args, **kwargs: self.call(name, *args, **kwargs)

    @classmethod
    def check_exports(cls, session: PipelineSession) -> None:
        """Raises `SourceError` E0202 where an export has a name that a model has, or that Python asks objects for."""
        if any(cls._is_taken(e) for e in session.manifest.entries):
            for fault in cls.faulty_exports(session.program):
                raise fault

    @classmethod
    def faulty_exports(cls, program: Program) -> Iterator[NncError]:
        """What to say of each export of such a name. Functions are no methods, also where they are entries."""
        for name, (d, _) in program.found.exports.items():
            if cls._is_taken(name):
                why = "names of methods do not begin with `_`" if name.startswith("_") else "every model has that name"
                yield error("E0202", f"an export cannot be called `{name}`: {why}", d.span)

    @classmethod
    def _is_taken(cls, entry: str) -> bool:
        return entry not in ENTRIES and (entry.startswith("_") or hasattr(cls, entry))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.exports})

    # --- training -----------------------------------------------------------------------------------------------------

    def fit(
        self,
        /,
        *args: Any,
        validation: Any = None,
        epochs: int | None = None,
        batch: int | None = None,
        shuffle: bool | None = None,
        callbacks: Any = (),
        resume: bool = False,
        check_nan: bool = False,
        progress: bool | None = None,
        shards: int | None = None,
        comm: Any = None,
        reduce: str = "tree",
        trace: str | PathLike[str] | None = None,
        **kwargs: Any,
    ) -> History:
        """Train on whole arrays, on one frame that has the target, on what gives batch after batch (a DataLoader), or
        without arguments on the data named in the train block. See `train.fit` and `train.stream`.

        `patience` of the train block watches the validation loss, and where nothing is held out the training loss.
        `progress` says whether to show how far it is; None: in a notebook, and where stdout is a terminal.

        With `shards`, a power of two, a batch is cut into so many, whose sums meet in a fixed order. The processes of
        `comm`, what `nnc.distributed.init()` gives or a communicator of mpi4py, share them and train to the same bits
        as one process; with `reduce="fast"` the order is MPI's, and bits depend on how many there are. All of them call
        `fit` alike, with the same examples. `trace` is a file for the last steps of all, which Perfetto shows."""
        from .notebook import watching
        from .train import stream
        from .train.fit import fit, unlearned

        settings.choice("reduce", reduce, ("tree", "fast"))
        ranks = None
        if comm is not None:
            from .train.shards import ranks_of

            ranks = ranks_of(comm)
        asked = settings.callbacks(callbacks)
        last = self.epochs_done + settings.training("epochs", epochs, self.train_spec.epochs)
        if resume and self.progress is not None and epochs is None:
            last = self.progress.last
        with self.workspace.training(), unlearned(self), watching(progress, last) as seen:
            told = (*asked, *seen)
            if len(args) == 1 and not kwargs and is_stream(args[0]):
                settings.left_out(
                    "fit of a loader",
                    batch=batch,
                    shuffle=shuffle,
                    resume=resume or None,
                    shards=shards,
                    comm=comm,
                    trace=trace,
                )
                return stream.fit(
                    self, args[0], validation=validation, epochs=epochs, callbacks=told, check_nan=check_nan
                )
            return fit(
                self,
                args,
                kwargs,
                validation=validation,
                epochs=epochs,
                batch=batch,
                shuffle=shuffle,
                callbacks=told,
                resume=resume,
                check_nan=check_nan,
                shards=shards,
                ranks=ranks,
                plain=reduce == "fast",
                trace=trace if trace is None else settings.path(trace),
            )

    def evaluate(self, /, *args: Any, batch: int | None = None, **kwargs: Any) -> dict[str, float | int]:
        """{metric: value} over whole arrays, in inference mode; without arrays over the test set of the train block's
        data (its validation set where there is no test set). Without `batch` all is one batch where memory allows. What
        gives batch after batch is evaluated so."""
        from .train import stream
        from .train.evaluate import evaluate, watched

        if len(args) == 1 and not kwargs and is_stream(args[0]):
            settings.left_out("evaluate of a loader", batch=batch)
            return watched(self, partial(stream.evaluate, self, args[0]))
        return evaluate(self, args, kwargs, batch=batch)

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

    def load_weights(
        self,
        path: str | PathLike[str],
        rules: str | PathLike[str] | None = None,
        *,
        by_position: bool = False,
        transpose: bool = False,
        into: str | None = None,
        from_: str | None = None,
        only: str | Iterable[str] = (),
    ) -> Transfer:
        """Parameters and state from a checkpoint or a run of ours, or from an .npz or .safetensors file: all of them
        or, with a `DataError` that lists every mismatch, nothing; names that differ are matched by the rules of a file,
        or by position (see `store.weights`). With `into`, a part of the model such as `"Net.body"`, what fits below it;
        with `only`, paths or patterns, just these (see `store.transfer`). Returns what was taken, left and refused."""
        from .store.transfer import load

        settings.text("into", into)
        settings.text("from_", from_)
        return load(
            self,
            settings.path(path),
            rules if rules is None else settings.path(rules),
            by_position=by_position,
            transpose=transpose,
            into=into,
            from_=from_,
            only=settings.names("only", only),
        )

    def to_onnx(
        self,
        path: str | PathLike[str],
        *,
        entry: str = "predict",
        opset: int = 20,
        license: str | None = None,
        functions: bool = True,
        apart: bool = False,
    ) -> Mapping[str, Any]:
        """Write `predict`, an export, or `train`, the training step, with the parameters as an ONNX file that ONNX's
        own checker has passed; facts about it. Variables that the entry changes are inputs, and outputs named
        `next/PATH`; with `apart` they begin in a file beside it, NAME.start.onnx, for run times that take nothing for
        an input that has a value. Layers are functions, or without `functions` written out. Raises UnsupportedError
        (E0632) that names all that has no counterpart."""
        from .onnx.export.export import export

        settings.text("entry", entry)
        settings.text("license", license)
        return export(self, settings.path(path), entry, opset, license, functions, apart)

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters of the text it was trained on: `encode` and `decode` (E0613 where it was on no text)."""
        from .data.text import Vocabulary

        if self.schema is None or self.schema.characters is None:
            raise argument_error(
                "E0613",
                f"{self.name} has no vocabulary: it was trained on no text",
                help="train it on `text(..)`, or load a checkpoint of such a training",
            )
        return Vocabulary(self.schema.characters)

    # --- about it -----------------------------------------------------------------------------------------------------

    def summary(self, depth: int | None = None) -> Summary:
        """What each layer takes, no deeper than so many levels: as text a table, as HTML, and its rows."""
        from .summary import Summary

        if self.manifest.model is None:
            raise argument_error("E0609", f"{self.name} has no model to sum up")
        return Summary.of(self._program, self.manifest, depth)

    def show(self, entry: str = "predict", *, depth: int | None = None, across: bool = False) -> Picture:
        """The network by layers, opened so many times, as a picture in SVG; `entry="train"` shows a step."""
        from .picture import Picture, picture

        settings.text("entry", entry)
        if entry not in self.manifest.entries:
            raise self._no_entry(entry)
        return Picture(picture(self._program, entry, depth, across=across))

    @property
    def _program(self) -> Program:
        session: Any = self.session
        return session.program  # type: ignore[no-any-return]

    def _repr_html_(self) -> str | None:
        if self.manifest.model is None:
            return None
        drawn = f"<details><summary>picture</summary>{self.show().svg}</details>"
        return f"<code>{escape(repr(self))}</code>{self.summary()._repr_html_()}{drawn}"

    def __repr__(self) -> str:
        with_inputs = ""
        if "predict" in self.manifest.entries:
            ports = self.entry("predict").signature
            with_inputs = (
                f"({', '.join(f'{p.name}: {p.type}' for p in ports.inputs)})"
                f" -> ({', '.join(f'{p.name}: {p.type}' for p in ports.outputs)})"
            )
        count = sum(prod(v.shape) for v in self.manifest.variables if v.role in ("weight", "bias"))
        plural = "" if self.threads == 1 else "s"
        return f"<{self.name}{with_inputs}, {count:,} parameters, {self.manifest.dtype}, {self.threads} thread{plural}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise argument_error(
            "E0610",
            "a compiled model cannot be pickled or copied",
            help="use `save` and `load` with a model compiled from the same source",
            kind=ArgumentTypeError,
        )


@lru_cache(256)
def _results(entry: str, names: tuple[str, ...]) -> Any:
    """The named tuple of an entry with several results."""
    return namedtuple(entry, names, rename=True)


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
