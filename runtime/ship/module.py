"""The network of this package: predictions, and where it was built with it, training. It needs NumPy and nothing else.

The code is a library beside this file, one for each level of x86-64; the best that the processor has is loaded. The
bits are those of every other build of the network.
"""

from __future__ import annotations

import ctypes
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from . import facts  # type: ignore[attr-defined]  # written beside this file when the package is made

DTYPES = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool": np.uint8}
_ALIGNED = 64


class Fault(ValueError):
    """What the network refused: `code` is that of the C interface."""

    def __init__(self, message: str, code: int = 0):
        super().__init__(message)
        self.code = code


def _load() -> ctypes.CDLL:
    """The library of the highest level that the processor has; the check itself needs no more than the first."""
    here = Path(__file__).parent
    first = ctypes.CDLL(str(here / facts.LIBRARIES[-1]))
    for name in facts.LIBRARIES:
        library = ctypes.CDLL(str(here / name))
        if not getattr(library, f"{facts.PREFIX}_check")(ctypes.c_uint64(facts.LAYOUT)):
            return library
    raise Fault(_message(first, -4), -4)


def _message(library: ctypes.CDLL, code: int) -> str:
    say = getattr(library, f"{facts.PREFIX}_message")
    say.restype = ctypes.c_char_p
    found: bytes = say(code)
    return found.decode()


_library = _load()
_local = threading.local()


def _zeros(nbytes: int) -> np.ndarray:
    raw = np.zeros(nbytes + _ALIGNED, np.uint8)
    start = -raw.ctypes.data % _ALIGNED
    return raw[start : start + nbytes]


def _address(array: np.ndarray) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


def _scratch(nbytes: int) -> int:
    """So many bytes of this thread's own."""
    held = getattr(_local, "scratch", None)
    if held is None or held.size < nbytes:
        held = _local.scratch = _zeros(nbytes)
    return _address(held)


class Struct(MutableMapping[str, np.ndarray]):
    """The variables in a C struct, by path: views, so that what is written is what the network reads."""

    def __init__(self, kind: str, memory: np.ndarray | None = None):
        self.kind, (self.nbytes, self._fields) = kind, facts.STRUCTS[kind]
        self.memory = _zeros(self.nbytes) if memory is None else memory

    def __getitem__(self, path: str) -> np.ndarray:
        at, dtype, shape = self._fields[path]
        count = int(np.prod(shape, dtype=int)) * np.dtype(DTYPES[dtype]).itemsize
        return self.memory[at : at + count].view(DTYPES[dtype]).reshape(shape)

    def __setitem__(self, path: str, value: Any) -> None:
        self[path][...] = value

    def __delitem__(self, path: str) -> None:
        raise TypeError(f"{path} is part of the {self.kind}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class _Function:
    """A function of the library, called with arrays."""

    def __init__(self, name: str):
        self.name = name
        self.parameters, self.sizes, self.scratch, self.outputs = facts.CALLS[name]
        self.run = getattr(_library, f"{facts.PREFIX}_{name}")
        kinds = {"size": ctypes.c_size_t, "f32": ctypes.c_float, "f64": ctypes.c_double, "i32": ctypes.c_int32,
                 "i64": ctypes.c_int64, "bool": ctypes.c_int8}  # fmt: skip
        self.run.argtypes = [
            *(
                kinds.get(p[2], ctypes.c_void_p) if p[0] in ("size", "number") else ctypes.c_void_p
                for p in self.parameters
            ),
            ctypes.c_void_p,
            ctypes.c_size_t,
        ]
        self.inputs = [p[1] for p in self.parameters if p[0] in ("input", "number")]

    def __call__(self, held: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        sizes: dict[str, int] = {}
        arrays: dict[str, np.ndarray] = {}
        for kind, name, dtype, shape in self.parameters:
            if kind == "input":
                arrays[name] = self._taken(name, given[name], dtype, shape, sizes)
        for size in self.sizes:
            if size not in sizes:
                raise Fault(f"{self.name}: no input says what size {size} is")
        results: dict[str, Any] = {}
        arguments: list[Any] = []
        for kind, name, dtype, shape in self.parameters:
            match kind:
                case "size":
                    arguments.append(sizes[name])
                case "input":
                    arguments.append(_address(arrays[name]))
                case "output":
                    results[name] = np.empty([n(sizes) for n in shape], DTYPES[dtype])
                    arguments.append(_address(results[name]))
                case "number":
                    arguments.append(given[name])
                case "metrics":
                    metrics = Struct("metrics")
                    arguments.append(_address(metrics.memory))
                case _:
                    arguments.append(_address(held[name]))
        nbytes = self.scratch(sizes)
        code = self.run(*arguments, _scratch(nbytes), nbytes)
        if code:
            raise Fault(_message(_library, code), code)
        if any(p[0] == "metrics" for p in self.parameters):
            results |= {path: metrics[path].item() for path in metrics}
        return results

    def _taken(self, name: str, value: Any, dtype: str, shape: Any, sizes: dict[str, int]) -> np.ndarray:
        array = np.asarray(value)
        wanted = DTYPES[dtype]
        if array.dtype != wanted:
            if not np.can_cast(array.dtype, wanted, "same_kind") and not (array.dtype.kind in "iu" and dtype[0] == "i"):
                raise Fault(f"{self.name}: {name} is {array.dtype}, wanted {dtype}")
            array = array.astype(wanted)
        if array.ndim != len(shape):
            raise Fault(f"{self.name}: {name} has {array.ndim} axes, wanted {len(shape)}")
        for n, size in zip(array.shape, shape, strict=True):
            if isinstance(size, str):
                sizes.setdefault(size, n)
        for axis, (n, size) in enumerate(zip(array.shape, shape, strict=True)):
            fits = sizes[size] if isinstance(size, str) else size(sizes)
            if n != fits:
                raise Fault(f"{self.name}: axis {axis} of {name} is {n}, wanted {fits}")
        return np.ascontiguousarray(array)


_FUNCTIONS = {name: _Function(name) for name in facts.CALLS}


def _named(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the inputs."""
    inputs = [n for n in _FUNCTIONS[name].inputs if n not in kwargs]
    if len(args) > len(inputs):
        raise TypeError(f"{name} takes {', '.join(_FUNCTIONS[name].inputs)}; got {len(args)} more")
    given = {**dict(zip(inputs, args, strict=False)), **kwargs}
    for n in _FUNCTIONS[name].inputs:
        if n not in given:
            raise TypeError(f"{name} wants {n}")
    return given


def _results(name: str, found: dict[str, Any]) -> Any:
    """An array, or a named tuple of several."""
    values = [a if a.ndim else a[()] for a in found.values()]
    return values[0] if len(values) == 1 else namedtuple(name, found, rename=True)(*values)


class Network:
    """Weights of its own: those that were built in, or drawn from a seed, where it trains."""

    def __init__(self, seed: int = 42):
        self._state: Struct | None = None
        self._prepared: np.ndarray | None = None
        if "init" in facts.CALLS:
            self._state = Struct("state")
            _FUNCTIONS["init"]({"state": self._state.memory}, {"seed": seed, "steps": 1})
        at = facts.WEIGHTS if self._state is not None else 0
        memory = self._state.memory[at : at + facts.STRUCTS["weights"][0]] if self._state is not None else None
        self.params = Struct("weights", memory) if "weights" in facts.STRUCTS else {}
        self.seed = seed

    def _held(self) -> dict[str, np.ndarray]:
        held = {"weights": self.params.memory} if isinstance(self.params, Struct) else {}
        if self._state is not None:
            held["state"] = self._state.memory
        return held

    def prepare(self) -> None:
        """Make what predictions read of the weights: to be called where `params` was written to."""
        if "prepare" in facts.CALLS:
            numbers = {"seed": self.seed, "step": 0, "epoch": 0, "steps": 1}
            self._prepared = _zeros(facts.STRUCTS["prepared"][0])
            _FUNCTIONS["prepare"]({**self._held(), "prepared": self._prepared}, numbers)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Results in inference mode: an array, or a named tuple of several."""
        if self._prepared is None:
            self.prepare()
        held = {**self._held(), "prepared": self._prepared}
        return _results("predict", _FUNCTIONS["predict"](held, _named("predict", args, kwargs)))

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Another export of the program."""
        return _results(name, _FUNCTIONS[name](self._held(), _named(name, args, kwargs)))

    def train_step(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """One step; losses and metrics, of before the update."""
        self._prepared = None
        return _FUNCTIONS["train"](self._held(), _named("train", args, kwargs))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Losses and metrics in inference mode."""
        return _FUNCTIONS["evaluate"](self._held(), _named("evaluate", args, kwargs))

    def fit(
        self,
        *args: Any,
        epochs: int = 1,
        batch: int = facts.BATCH,
        shuffle: bool = True,
        callback: Callable[[dict[str, float]], object] | None = None,
        **kwargs: Any,
    ) -> list[dict[str, float]]:
        """Train on whole arrays, in the order of `nnc train`: a dictionary of losses and metrics for each epoch. A
        callback that returns True ends it."""
        assert self._state is not None
        given = {n: np.asarray(a) for n, a in _named("train", args, kwargs).items()}
        n = len(next(iter(given.values())))
        state, history = self._state, []
        first = int(state["train/epoch"])
        state["train/steps"] = (first + epochs) * -(-n // batch)
        for epoch in range(first, first + epochs):
            state["train/epoch"] = epoch
            order = self.order(n, epoch) if shuffle else np.arange(n)
            totals: dict[str, float] = {}
            for at in range(0, n, batch):
                some = order[at : at + batch]
                for name, value in self.train_step(**{k: a[some] for k, a in given.items()}).items():
                    totals[name] = totals.get(name, 0.0) + value * (1 if name in facts.SUMS else len(some))
            row = {name: total / (1 if name in facts.SUMS else n) for name, total in totals.items()}
            history.append({"epoch": epoch + 1, **row})
            state["train/epoch"] = epoch + 1
            if callback is not None and callback(history[-1]) is True:
                break
        return history

    def order(self, n: int, epoch: int) -> np.ndarray:
        """The order in which n examples are taken in an epoch."""
        found = np.empty(n, np.uint32)
        run, nbytes = getattr(_library, f"{facts.PREFIX}_order"), 8 * n + 7
        place, scratch = ctypes.c_void_p(_address(found)), ctypes.c_void_p(_scratch(nbytes))
        counters = ctypes.c_int64(self.seed), ctypes.c_int64(epoch)
        code = run(place, ctypes.c_size_t(n), *counters, scratch, ctypes.c_size_t(nbytes))
        if code:
            raise Fault(_message(_library, code), code)
        return found

    def save(self, path: str | Path) -> None:
        """The bytes of the C struct: what `nnc state import` reads, and C, and JavaScript."""
        memory = self._state if self._state is not None else self.params
        assert isinstance(memory, Struct)
        Path(path).write_bytes(memory.memory.tobytes())

    def load(self, path: str | Path) -> None:
        """The other way round; nothing changes where the file is of another network."""
        memory = self._state if self._state is not None else self.params
        assert isinstance(memory, Struct)
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
        if data.size != memory.nbytes or (self._state is not None and int(data[:8].view(np.uint64)[0]) != facts.LAYOUT):
            raise Fault(f"{path} is no {memory.kind} of this network", -3)
        memory.memory[:] = data
        self._prepared = None


def predict(*args: Any, **kwargs: Any) -> Any:
    """Results of what was learned when this was built."""
    if not facts.TRAINED:
        raise TypeError("this was built without weights: `Network()` has some of its own")
    held = {"prepared": _trained}
    return _results("predict", _FUNCTIONS["predict"](held, _named("predict", args, kwargs)))


if facts.TRAINED:
    _place = ctypes.c_uint8.in_dll(_library, facts.TRAINED)
    _trained = np.ctypeslib.as_array(
        (ctypes.c_uint8 * facts.STRUCTS["prepared"][0]).from_address(ctypes.addressof(_place))
    )
