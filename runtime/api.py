"""The front door: `compile` a file or text to a model, `function` for a single `fn`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..compiler.manifest import DataSizes, Port, TrainSpec
from ..compiler.session import Session
from ..compiler.settings import Settings
from ..compiler.types.tensors import FORMATS, TensorType
from ..dsl.errors import SourceError, error
from ..dsl.render import printable
from ..dsl.source import Source, Span
from ..dsl.tracebacks import hide_ours, is_debugging
from . import settings

if TYPE_CHECKING:
    from .data.dataset import Dataset
    from .model import Model


P = ParamSpec("P")
T = TypeVar("T")


def tells_the_source(f: Callable[P, T]) -> Callable[P, T]:
    """What is wrong with a program is told by the place in the program; where the compiler noticed says nothing."""

    @wraps(f)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return f(*args, **kwargs)
        except SourceError as e:
            if is_debugging():
                raise
            hide_ours(SourceError)
            raise e.with_traceback(None) from None

    return call


def source_of(program: str | os.PathLike[str] | Source) -> Source:
    """A path's text, or text itself: what has a line break or a brace in it is text."""
    if isinstance(program, Source):
        return program
    if not isinstance(program, str | os.PathLike):
        raise settings.wrong_type("the program", "a path or a text", program)
    if isinstance(program, str) and any(c in program for c in "\n{="):
        return Source("<text>", program)
    from ..dsl.parser import read_source

    return read_source(program)


def open_program(
    source: Source, options: Settings, *, folder: Path | None = None, override: str | None = None
) -> tuple[Session, Dataset | None]:
    """A session, and the data set where it had to be read to know a size; `override` takes the place of its path."""
    from .model import Model

    loaded: list[Dataset] = []
    session = Session(source, checked(options), data_sizes(folder or folder_of(source), override, loaded))
    Model.check_exports(session)
    settings.sizes(options.sizes, session.manifest.sources)
    return session, loaded[0] if loaded else None


def checked(options: Settings) -> Settings:
    """What a compilation is asked for, looked at, with what only the runtime knows."""
    settings.text("model", options.model)
    settings.hypers(options.hyper)
    settings.sizes(options.sizes)
    settings.choice("dtype", options.dtype, ("f32", "f64"))
    settings.choice("weights_dtype", options.weights_dtype, FORMATS)
    settings.text("target_cpu", options.target_cpu)
    return replace(options, sources=_sources, arrays=_values)


def data_sizes(folder: Path, override: str | None, loaded: list[Dataset]) -> DataSizes:
    """What reads the data of a train block to know their sizes; the data set is added to `loaded`."""

    def read(spec: TrainSpec, ports: tuple[Port, ...]) -> Mapping[str, int]:
        from .data import sources as data

        assert spec.data is not None
        loaded.append(data.load(spec.data, folder, validation=spec.validation, seed=spec.seed, override=override))
        return loaded[0].sizes(spec.inputs, ports)

    return read


def _sources() -> Sequence[str]:
    """The data sources that a train block may name; their readers are loaded only where it names one."""
    from .data.formats import NAMES

    return NAMES


def _values(path: str, data: bytes, member: str | None, name: str, type: TensorType) -> tuple[Any, ...]:
    """What a constant is that names a file."""
    from .data.frozen import values

    return values(path, data, member, name, type)


def folder_of(source: Source) -> Path:
    """What paths in a program are relative to."""
    return Path(".") if source.name == "<text>" else Path(source.name).parent


def _given(values: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {} if values is None else values


@tells_the_source
def compile(
    program: str | os.PathLike[str] | Source,
    *,
    model: str | None = None,
    hyper: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    seed: int | None = None,
    threads: int | None = None,
    dtype: str = "f32",
    target_cpu: str = "native",
    cache: bool = True,
    optimize: bool = True,
    precise: bool = False,
    weights_dtype: str = "f32",
) -> Model:
    """A model from a `.nn` file's path or from `.nn` text.

    model: its name, where the file has several. hyper: values for the file's `hyper` declarations. sizes: values for
    sizes that parameters depend on. seed: of the initial parameters and of training (default: the train block's).
    threads: at most so many (default: the processors there are). dtype: "f64" reads every `f32` of the program as f64.
    precise: convolutions of 3 x 3 are computed as they are written, not by Winograd's algorithm, whose results are off
    by up to 2e-5 of their standard deviation, and not by 2e-6. weights_dtype: "f16", "bf16" or "i8": predictions read
    parameters in so few bytes, rounded to them; all sums are f32, and training is as it is.

    Raises SourceError where the program is wrong, DataError where a file cannot be read.
    """
    from .model import Model

    source = source_of(program)
    if seed is not None:  # before anything is compiled
        settings.seed(seed)
    settings.threads(threads)
    options = Settings(
        model=model,
        hyper=_given(hyper),
        sizes=_given(sizes),
        dtype=dtype,
        target_cpu=target_cpu,
        cache=cache,
        optimize=optimize,
        precise=precise,
        weights_dtype=weights_dtype,
    )
    session, dataset = open_program(source, options)
    for text in session.manifest.warnings:
        warnings.warn(printable(text), stacklevel=3)
    return Model(session, seed=seed, threads=threads, folder=folder_of(source), dataset=dataset)


@tells_the_source
def function(
    program: str | os.PathLike[str],
    *,
    sizes: Mapping[str, int] | None = None,
    threads: int | None = None,
    dtype: str = "f32",
    target_cpu: str = "native",
    cache: bool = True,
    precise: bool = False,
) -> Callable[..., Any]:
    """The first `fn` of a text or file, compiled: NumPy arrays in, NumPy arrays out. Raises SourceError where it is
    wrong.

    >>> f = nnc.function("fn f(x: f32[N, M]) -> f32[M] = sum(x, axis = 0)")
    """
    from .model import Model

    source = source_of(program)
    options = Settings(sizes=_given(sizes), dtype=dtype, target_cpu=target_cpu, cache=cache, precise=precise)
    session, _ = open_program(source, options)
    net = Model(session, threads=threads, folder=folder_of(source))
    names = [e for e in session.manifest.entries]
    if session.manifest.model is not None or not names:
        raise error(
            "E0203",
            "there is no `fn` to compile" if not names else "`function` takes a text with a `fn`, not a model",
            Span(source, 0, 0),
            kind=SourceError,
        )
    name = names[0]
    net.entry(name)  # compiled here, so that what is wrong with it is said here

    def call(*args: Any, **kwargs: Any) -> Any:
        return net.call(name, *args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = source.text
    return call
