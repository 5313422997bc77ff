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

DTYPES = {"f32": np.float32, "f64": np.float64, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
          "bool": np.bool_, "u64": np.uint64}  # fmt: skip
_ALIGNED = 64


class Fault(ValueError):
    """What the network refused: `code` is that of the C interface, 0 for what was refused before it was called."""

    def __init__(self, message: str, code: int = 0):
        super().__init__(message)
        self.code = code


def _load() -> tuple[str, ctypes.CDLL]:
    """The library of the highest level that the processor has, and its name; the check itself needs no level."""
    for name, header in facts.LIBRARIES.items():
        library = ctypes.CDLL(str(Path(__file__).parent / name))
        code = getattr(library, f"{facts.PREFIX}_check")(ctypes.c_uint64(header))
        if not code:
            return name, library
    raise Fault(_message(library, code), code)


def _message(library: ctypes.CDLL, code: int) -> str:
    say = getattr(library, f"{facts.PREFIX}_message")
    say.restype = ctypes.c_char_p
    found: bytes = say(code)
    return found.decode()


_name, _library = _load()
_structs = {**facts.STRUCTS, **facts.PREPARED[_name]}
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
        self.kind, (self.nbytes, self._fields) = kind, _structs[kind]
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


def _converted(what: str, value: Any, dtype: str) -> np.ndarray:
    """An array of the dtype; a number that it does not have is refused."""
    array, wanted = np.asarray(value), DTYPES[dtype]
    if array.dtype == wanted:
        return array
    if array.dtype.kind not in ("biuf" if dtype[0] == "f" else "biu"):
        raise Fault(f"{what} is {array.dtype}, wanted {dtype}")
    with np.errstate(over="ignore"):
        found: np.ndarray = array.astype(wanted)
    same = found == array if found.dtype.kind != "f" else np.isfinite(found) | ~np.isfinite(array)
    if not same.all():
        raise Fault(f"{what} has {array[~same].flat[0]}, which {dtype} does not have")
    return found


class _Function:
    """A function of the library, called with arrays."""

    def __init__(self, name: str):
        self.name = name
        function, self.parameters, self.sizes = facts.CALLS[name]
        self.scratch = facts.SCRATCH[_name][name]
        self.run = getattr(_library, f"{facts.PREFIX}_{function}")
        kinds = {"size": ctypes.c_size_t, "f32": ctypes.c_float, "f64": ctypes.c_double, "i32": ctypes.c_int32,
                 "i64": ctypes.c_int64, "bool": ctypes.c_uint8}  # fmt: skip
        by_value = ("size", "number", "progress")
        given = [kinds[p[2]] if p[0] in by_value else ctypes.c_void_p for p in self.parameters]
        self.run.argtypes = [*given, ctypes.c_void_p, ctypes.c_size_t]
        self.inputs = [p[1] for p in self.parameters if p[0] in ("input", "number")]

    def __call__(
        self, held: Mapping[str, np.ndarray], given: Mapping[str, Any], progress: Any = None
    ) -> dict[str, Any]:
        taken = {
            p[1]: _converted(f"{self.name}: {p[1]}", given[p[1]], p[2]) for p in self.parameters if p[0] == "input"
        }
        sizes = self._sizes(taken)
        arrays = {name: np.ascontiguousarray(array) for name, array in taken.items()}
        results: dict[str, Any] = {}
        arguments: list[Any] = []
        metrics = None
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
                    arguments.append(_converted(f"{self.name}: {name}", given[name], dtype).item())
                case "progress":
                    arguments.append((progress or given)[name])
                case "metrics":
                    metrics = Struct("metrics")
                    arguments.append(_address(metrics.memory))
                case _:
                    arguments.append(_address(held[name]))
        nbytes = self.scratch(sizes)
        code = self.run(*arguments, _scratch(nbytes), nbytes)
        if code:
            raise Fault(_message(_library, code), code)
        if metrics is not None:
            results |= {path: array.item() for path, array in metrics.items()}
        return results

    def _sizes(self, taken: Mapping[str, np.ndarray]) -> dict[str, int]:
        """What the arrays say of the sizes: those that stand alone first, then multiples of one."""
        sizes: dict[str, int] = {}
        shapes = {p[1]: p[3] for p in self.parameters if p[0] == "input"}
        for name, shape in shapes.items():
            if taken[name].ndim != len(shape):
                raise Fault(f"{self.name}: {name} has {taken[name].ndim} axes, wanted {len(shape)}")
            for n, size in zip(taken[name].shape, shape, strict=True):
                if isinstance(size, str):
                    sizes.setdefault(size, n)
        for name, shape in shapes.items():
            for n, size in zip(taken[name].shape, shape, strict=True):
                if isinstance(size, tuple) and n % size[0] == 0:
                    sizes.setdefault(size[1], n // size[0])
        if missing := [size for size in self.sizes if size not in sizes]:
            raise Fault(f"{self.name}: no input says what size {missing[0]} is")
        for name, shape in shapes.items():
            for axis, (n, size) in enumerate(zip(taken[name].shape, shape, strict=True)):
                match size:
                    case str():
                        fits = sizes[size]
                    case (times, of):
                        fits = times * sizes[of]
                    case _:
                        fits = size(sizes)
                if n != fits:
                    raise Fault(f"{self.name}: axis {axis} of {name} is {n}, wanted {fits}")
        return sizes


_FUNCTIONS = {name: _Function(name) for name in facts.CALLS}


def _named(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the inputs."""
    if name not in _FUNCTIONS:
        raise TypeError(f"this was built without `{name}`")
    inputs = _FUNCTIONS[name].inputs
    for n in kwargs:
        if n not in inputs:
            raise TypeError(f"{name} takes {', '.join(inputs)}, not {n}")
    left = [n for n in inputs if n not in kwargs]
    if len(args) > len(left):
        raise TypeError(f"{name} takes {', '.join(inputs)}; got {len(args) - len(left)} more")
    given = {**dict(zip(left, args, strict=False)), **kwargs}
    for n in inputs:
        if n not in given:
            raise TypeError(f"{name} wants {n}")
    return given


def _results(name: str, found: dict[str, Any]) -> Any:
    """An array, or a named tuple of several."""
    values = [a if a.ndim else a[()] for a in found.values()]
    return values[0] if len(values) == 1 else namedtuple(name, found, rename=True)(*values)


class Network:
    """Weights of its own: those that were built in where there are some and no seed is given, else drawn from a seed,
    where it was built to train; else zeros, for `params` to be filled and `prepare` to be called."""

    def __init__(self, seed: int | None = None):
        self._state: Struct | None = None
        self._prepared: np.ndarray | None = None
        self._lock = threading.Lock()
        memory = None
        if "init" in facts.CALLS:
            self._state = Struct("state")
            _FUNCTIONS["init"](
                {"state": self._state.memory}, {"seed": facts.SEED if seed is None else seed, "steps": 1}
            )
            memory = self._state.memory[facts.WEIGHTS : facts.WEIGHTS + _structs["weights"][0]]
        self.params: MutableMapping[str, np.ndarray] = Struct("weights", memory) if "weights" in _structs else {}
        if isinstance(self.params, Struct) and facts.TRAINED and seed is None:
            self.params.memory[:] = np.frombuffer((Path(__file__).parent / "weights.bin").read_bytes(), np.uint8)

    def _held(self) -> dict[str, np.ndarray]:
        held = {"weights": self.params.memory} if isinstance(self.params, Struct) else {}
        if self._state is not None:
            held["state"] = self._state.memory
        return held

    def _progress(self) -> dict[str, int]:
        """Where training stands, for what depends on it: random draws."""
        found = {"seed": facts.SEED, "step": 0, "epoch": 0, "steps": 1}
        if self._state is not None:
            paths = {"seed": "train/seed", "step": "train/t", "epoch": "train/epoch", "steps": "train/steps"}
            found |= {name: int(self._state[path]) for name, path in paths.items() if path in self._state}
        return found

    def prepare(self) -> None:
        """Make what predictions read of the weights: to be called where `params` was written to."""
        made = None
        if "prepare" in facts.CALLS:
            made = _zeros(_structs["prepared"][0])
            _FUNCTIONS["prepare"]({**self._held(), "prepared": made}, {}, self._progress())
        elif facts.TRAINED:
            made = _trained
        self._prepared = made

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Results in inference mode: an array, or a named tuple of several."""
        given = _named("predict", args, kwargs)
        with self._lock:
            if self._prepared is None:
                self.prepare()
            prepared = self._prepared
        held = self._held() if prepared is None else {**self._held(), "prepared": prepared}
        return _results("predict", _FUNCTIONS["predict"](held, given, self._progress()))

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Another export of the program."""
        return _results(name, _FUNCTIONS[name](self._held(), _named(name, args, kwargs), self._progress()))

    def train_step(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """One step; losses and metrics, of before the update."""
        given = _named("train", args, kwargs)
        self._prepared = None
        return _FUNCTIONS["train"](self._held(), given, self._progress())

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Losses and metrics in inference mode."""
        return _FUNCTIONS["evaluate"](self._held(), _named("evaluate", args, kwargs), self._progress())

    def fit(
        self,
        *args: Any,
        epochs: int = 1,
        batch: int | None = facts.BATCH,
        shuffle: bool = facts.SHUFFLE,
        callback: Callable[[dict[str, float]], object] | None = None,
        **kwargs: Any,
    ) -> list[dict[str, float]]:
        """Train on whole arrays, in the order of `nnc train`: a dictionary of losses and metrics for each epoch.
        Without a `batch` all examples are one. A callback that returns True ends it."""
        given = {n: np.asarray(a) for n, a in _named("train", args, kwargs).items()}
        assert self._state is not None
        rows = {n: len(a) for n, a in given.items() if n in facts.ROWS}
        if not rows:
            raise Fault("nothing that is trained on comes by examples: `train_step` takes it whole")
        n = next(iter(rows.values()))
        if n == 0 or any(count != n for count in rows.values()):
            raise Fault(f"examples of {', '.join(f'{name}: {count}' for name, count in rows.items())}")
        state, history, batch = self._state, [], batch or n
        first = int(state["train/epoch"]) if "train/epoch" in state else 0
        self._set("train/steps", (first + epochs) * -(-n // batch))
        for epoch in range(first, first + epochs):
            self._set("train/epoch", epoch)
            order = self.order(n, epoch) if shuffle else np.arange(n)
            totals: dict[str, float] = {}
            for at in range(0, n, batch):
                some = order[at : at + batch]
                cut = {k: a[some] if k in rows else a for k, a in given.items()}
                for name, value in self.train_step(**cut).items():
                    totals[name] = totals.get(name, 0.0) + value * (1 if name in facts.SUMS else len(some))
            row = {name: total / (1 if name in facts.SUMS else n) for name, total in totals.items()}
            history.append({"epoch": epoch + 1, **row})
            self._set("train/epoch", epoch + 1)
            if callback is not None and callback(history[-1]) is True:
                break
        return history

    def _set(self, path: str, value: int) -> None:
        if self._state is not None and path in self._state:
            self._state[path] = value

    def order(self, n: int, epoch: int) -> np.ndarray:
        """The order in which n examples are taken in an epoch."""
        found = np.empty(n, np.uint32)
        run, nbytes = getattr(_library, f"{facts.PREFIX}_order"), 8 * n + 7
        place, scratch = ctypes.c_void_p(_address(found)), ctypes.c_void_p(_scratch(nbytes))
        counters = ctypes.c_int64(self._progress()["seed"]), ctypes.c_int64(epoch)
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
    given = _named("predict", args, kwargs)
    return _results("predict", _FUNCTIONS["predict"]({"prepared": _trained}, given))


if facts.TRAINED:
    _trained = np.ctypeslib.as_array((ctypes.c_uint8 * _structs["prepared"][0]).in_dll(_library, facts.TRAINED))
