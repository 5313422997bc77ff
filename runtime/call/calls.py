"""One entry point, ready to be called: arrays in, fresh arrays out, in microseconds.

In: a compiled entry (`signature`, `run`) and the variables it reads and writes. What does not change between calls is
prepared once: the slots of the variables, and per combination of sizes the output shapes, the scratch size and the
guards. A call then fills in the pointers of its arguments and outputs.
"""

from __future__ import annotations

import operator
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import Array as CArray
from ctypes import addressof, c_int64, c_void_p, sizeof
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from weakref import WeakSet

import numpy as np
from numpy import empty

from ...compiler.manifest import Manifest, Signature
from ...compiler.native.loading import INTERRUPTED
from ...compiler.types.sizes import Dim, Size, parse_size, substitute, symbols
from ...compiler.types.stacks import is_stack, members
from ...dsl.errors import ArgumentError, ArgumentTypeError, error
from ...dsl.record import dataclass
from .arrays import (
    BATCHES,
    NUMPY,
    Wanted,
    address_of,
    aligned_arrays,
    aligned_bytes,
    bind,
    check_nbytes,
    is_stream,
    nbytes,
    passed_rows,
    wanted,
)
from .column import Array
from .interrupt import Watch
from .messages import argument_error, listed, unknown
from .state import State, apart

if TYPE_CHECKING:
    from ...compiler.origin import Origin

_HOLDS = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_INDEX = re.compile(r"index of \w+(?: by `(\w+)`)? is outside an axis of size (.+)")
_MOMENT = 0.01  # seconds; a call that took less is over before anybody looks for a signal
_AGE = 1.0  # one that took more may be interrupted when it has begun to write variables
_REMEMBERED = 64  # combinations of sizes kept per entry
_LOOKS = operator.attrgetter("flags.carray", "__class__", "dtype", "shape")  # all that `bind` asks of an array


class Native(Protocol):
    """A compiled entry point, as the compiler hands it over. `epoch` runs it as the step of the native epoch loop."""

    @property
    def signature(self) -> Signature: ...
    @property
    def prepare(self) -> Callable[[Any, Any, int, int | None], int] | None: ...
    def run(self, sizes: Any, slots: Any, arena: int, pool: int | None) -> int: ...
    def epoch(self, job: Any) -> int: ...


class Session(Protocol):
    """One compiled program; entries are compiled when they are first asked for."""

    @property
    def manifest(self) -> Manifest: ...
    def entry(self, name: str) -> Native: ...
    @property
    def made_by(self) -> tuple[str, str]: ...
    def pool(self, threads: int) -> Any: ...
    def origin(
        self, entry: str, root: str, inputs: Mapping[str, Any], variables: Mapping[str, Any], patient: bool
    ) -> Origin | None: ...


class Workspace:
    """What the calls of one model share: scratch memory, threads, and the lock that keeps calls apart.

    A child made by fork inherits neither the worker threads nor a usable lock: it gets its own."""

    def __init__(self, make_pool: Callable[[int], Any], threads: int):
        self._make_pool, self.threads = make_pool, threads
        self.fresh()
        _WORKSPACES.add(self)

    def fresh(self) -> None:
        """As at the beginning."""
        self.lock = threading.RLock()
        self._training = threading.Lock()
        self._pool: tuple[Any, ...] = ()  # made when first needed; the pool of one thread is None
        self._allocate(0)

    def _allocate(self, nbytes: int) -> None:
        self._arena = aligned_bytes(nbytes, "scratch memory")
        self._size, self._address = nbytes, address_of(self._arena)

    @contextmanager
    def training(self) -> Iterator[None]:
        """While a fit is under way; a second one, in another thread or from a callback, is refused (E0616)."""
        lock = self._training  # which is made anew after a fork
        if not lock.acquire(blocking=False):
            raise argument_error("E0616", "the model is being trained: another `fit` of it has not ended")
        try:
            yield
        finally:
            lock.release()

    def arena(self, nbytes: int) -> int:
        """The address of at least `nbytes` bytes of scratch; grows, never shrinks. Called with the lock held."""
        if nbytes > self._size:
            self._allocate(0)  # the old one goes first
            self._allocate(nbytes)
        return self._address

    @property
    def pool(self) -> Any:
        if not self._pool:
            self._pool = (self._make_pool(self.threads),)
        return self._pool[0]


_WORKSPACES: WeakSet[Workspace] = WeakSet()


def _forked() -> None:
    for workspace in _WORKSPACES:
        workspace.fresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@dataclass(slots=True)
class _Sized:
    sizes: CArray[c_int64]
    address: int  # of the sizes
    outputs: tuple[tuple[int, tuple[int, ...], np.dtype[Any]], ...]  # slot, shape, dtype
    arena: int
    seconds: float = inf  # of the last call that was watched


class Call:
    """An entry point bound to a model's variables and workspace. It owns what is prepared of them. One that is to
    begin `anew` writes all that it writes again, whatever was there: nothing of that is kept for who interrupts it."""

    def __init__(self, native: Native, state: State, workspace: Workspace, anew: bool = False):
        self.native, self._run = native, native.run
        self.signature = s = native.signature
        self.wants: tuple[Wanted, ...] = tuple(map(wanted, s.inputs))
        self.workspace, self._state, self._anew = workspace, state, anew
        stored = [state.stored(path) for path in s.variables]
        shapes = (([_value(n, {}) for n in p.shape], NUMPY[p.dtype]) for p in s.prepared)
        prepared = aligned_arrays(shapes, "what is prepared")
        self.variables = [*stored, *prepared]  # keeps the memory behind the slots alive
        self._updated = [state.stored(path) for path in s.updates]
        self._version: int | None = None  # of the state, when it was prepared
        if s.prepared:
            state.prepares(path for path in s.variables if path not in s.updates)  # of its own it prepares nothing
        self.first_output = len(s.inputs) + len(self.variables)
        self.mark = np.zeros(1, np.int64)  # see `Signature`
        self._slots = (c_void_p * max(1, self.first_output + len(s.outputs) + bool(s.marks)))()
        if s.marks:
            self._slots[len(self._slots) - 1] = address_of(self.mark)
        for k, array in enumerate(self.variables, len(s.inputs)):
            self._slots[k] = address_of(array)
        self._slots_address = addressof(self._slots)
        self._variables_address = self._slots_address + len(s.inputs) * sizeof(c_void_p)
        self._size_names = s.sizes
        self._sized: dict[tuple[int, ...], _Sized] = {}
        self._met: dict[tuple[Any, ...], _Sized] = {}  # by how arrays look that could be passed as they are

    def __call__(self, /, *args: Any, **kwargs: Any) -> list[Array]:
        try:
            sized = None if kwargs else self._met.get(tuple(map(_LOOKS, args)))
        except AttributeError:  # of what is no array
            sized = None
        if sized is not None:
            return self.run(args, sized)
        values = self.arguments(args, kwargs)
        arrays, sizes = bind(self.signature.name, self.wants, values)
        sized = self.sized(sizes)
        if all(a is v and type(a) is np.ndarray and a.flags.carray for a, v in zip(arrays, values, strict=True)):
            if len(self._met) >= _REMEMBERED:
                self._met.clear()
            self._met[tuple(map(_LOOKS, arrays))] = sized
        return self.run(arrays, sized)

    @property
    def names(self) -> list[str]:
        """Of the results; of a stack those of its members."""
        return [name for p in self.signature.outputs for name in members(p.name)]

    def named(self, outputs: Sequence[Array]) -> dict[str, Array]:
        """Results by name."""
        found: dict[str, Array] = {}
        for p, a in zip(self.signature.outputs, outputs, strict=True):
            found |= apart(p.name, a) if is_stack(p.name) else {p.name: a}
        return found

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Sequence[Any]:
        """Positional and keyword arguments in the order of the inputs (E0604)."""
        inputs = self.signature.inputs
        if not kwargs and len(args) == len(inputs):
            return args
        entry, names = self.signature.name, [p.name for p in inputs]
        if len(args) > len(names):
            raise argument_error("E0604", f"{entry} takes {_count(names)}, got {len(args)}", kind=ArgumentTypeError)
        values = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                raise unknown(f"input of {entry}", name, names)
            if name in values:
                raise argument_error("E0604", f"{entry} got `{name}` twice", kind=ArgumentTypeError)
            values[name] = value
        for port in inputs:
            if port.name not in values and port.default is not None:
                values[port.name] = np.asarray(port.default, NUMPY[port.dtype])
        if missing := [f"`{n}`" for n in names if n not in values]:
            what = f"{entry} takes {_count(names)}; {', '.join(missing)} is missing"
            raise argument_error("E0604", what, BATCHES if any(map(is_stream, args)) else None, kind=ArgumentTypeError)
        return [values[n] for n in names]

    def sized(self, sizes: Mapping[str, int]) -> _Sized:
        """What depends on the sizes alone; guards are checked here (E0606), so once per combination."""
        try:
            key = tuple([sizes[name] for name in self._size_names])
        except KeyError as e:
            what = f"no input of {self.signature.name} says what size {e.args[0]} is"
            raise argument_error("E0601", what) from None
        known = self._sized.get(key)
        return known if known is not None else self._prepare(key, sizes)

    def _prepare(self, key: tuple[int, ...], sizes: Mapping[str, int]) -> _Sized:
        s = self.signature
        for guard in s.guards:
            if not any(_HOLDS[r.op](_value(r.left, sizes), _value(r.right, sizes)) for r in guard.relations):
                named = {d: None for r in guard.relations for d in (r.left, r.right) if not isinstance(d, int)}
                found = ", ".join(f"{d} is {_value(d, sizes)}" for d in named)
                raise argument_error("E0606", f"{guard.message}: {found}")
        outputs = []
        for slot, port in enumerate(s.outputs, self.first_output):
            shape = tuple(_value(d, sizes) for d in port.shape)
            if min(shape, default=0) < 0:
                raise argument_error("E0606", f"`{port.name}` of {s.name} would have the shape {list(shape)}")
            check_nbytes(shape, NUMPY[port.dtype], f"`{port.name}` of {s.name}")
            outputs.append((slot, shape, NUMPY[port.dtype]))
        arena = _value(s.scratch(sizes, self.workspace.threads), sizes)
        if arena < 0:
            raise argument_error("E0606", f"{s.name} would need {arena} bytes of memory of its own")
        native_sizes = (c_int64 * max(1, len(key)))(*key)
        result = _Sized(native_sizes, addressof(native_sizes), tuple(outputs), arena)
        if len(self._sized) >= _REMEMBERED:
            self._sized.clear()
        self._sized[key] = result
        return result

    def run(self, arrays: Sequence[Array], sized: _Sized) -> list[Array]:
        """Call with arrays that `bind` made; the outputs are new and the caller's own."""
        slots, outputs = self._slots, []
        with self.workspace.lock:
            for k, a in enumerate(arrays):
                slots[k] = address_of(a)
            for k, shape, dtype in sized.outputs:
                a = empty(shape, dtype)
                slots[k] = address_of(a)
                outputs.append(a)
            status = self.launch(sized, self._slots_address)
        if status:
            self.failed(status, arrays)
        return outputs

    def launch(self, sized: _Sized, slots: int) -> int:
        """Run the native code once, on slots at an address, and give its status. Called with the lock held."""
        if self._version != self._state.version:
            self.refresh()
        arena, pool = self.workspace.arena(sized.arena), self.workspace.pool
        status = INTERRUPTED
        if sized.seconds <= _MOMENT:
            status = self._run(sized.address, slots, arena, pool)
        if status < 0:  # or a signal was meant for a call of the main thread
            kept = () if self._anew else self._updated
            status = self._watched(self._run, sized, slots, kept, again=self._anew)
        if self._updated:
            self._state.written(self.signature.updates)
        return status

    def epoch(self, job: Any) -> int:
        """Run the native code as the step of a job, whose slots are from here. Called with the lock held."""
        self.refresh()
        status = self.native.epoch(job)
        if self._updated:
            self._state.written(self.signature.updates)
        return status

    def step(self, sizes: int, slots: int, arena: int) -> int:
        """Run the native code once as a part of a fit, which watches for signals itself; sizes and slots are at these
        addresses. Called with the lock held."""
        status = self._run(sizes, slots, arena, self.workspace.pool)
        if self._updated:
            self._state.written(self.signature.updates)
        return status

    def refresh(self) -> None:
        """Prepare what is read of variables as they are now, where they have changed. Called with the lock held."""
        version = self._state.version
        if self._version != version and (prepare := self.native.prepare) is not None:
            sized = _Sized((c_int64 * 1)(), 0, (), self.signature.preparing)
            self._watched(prepare, sized, self._variables_address, (), again=True)
        self._version = version

    def _watched(
        self, run: Callable[..., int], sized: _Sized, slots: int, updated: Sequence[Array], again: bool = False
    ) -> int:
        """A call that a signal ends, with all variables as they were: its handler then runs, and where that does not
        raise the call begins anew. What it writes may be of such a kind that it is written `again` before it is read.
        """
        arena, pool = self.workspace.arena(sized.arena), self.workspace.pool
        kept = [(a, a.copy()) for a in updated] if sized.seconds > _AGE else []
        start = perf_counter()
        try:
            with Watch(pool, half=again or bool(kept)) as watch:
                while (status := run(sized.address, slots, arena, pool)) < 0:
                    _restore(kept)
                    watch.again()
        except KeyboardInterrupt:
            _restore(kept)
            raise
        sized.seconds = perf_counter() - start
        return status

    def arena_bytes(self, sizes: Mapping[str, int]) -> int:
        """Scratch memory at these sizes, and that of the outputs."""
        s = self.signature
        outputs = sum(nbytes([_value(d, sizes) for d in p.shape], NUMPY[p.dtype]) for p in s.outputs)
        return _value(s.scratch(sizes, self.workspace.threads), sizes) + outputs

    def slots_copy(self) -> Any:
        """Slots of one's own with the variables filled in, for a job that runs this entry many times."""
        return type(self._slots).from_buffer_copy(self._slots)

    def failed(
        self, status: int, arrays: Sequence[Array], rows: Array | None = None, classes: Sequence[str] | None = None
    ) -> NoReturn:
        """Raise for a status that is not 0 (E0607). Where an index that was passed was out of range it is named, with
        its row (`rows`: in what the user passed) and the classes the data have."""
        checks = self.signature.checks
        message = checks[status - 1] if 0 < status <= len(checks) else f"check {status} failed"
        help = None
        if found := _INDEX.search(message):
            name, size = found.groups()
            n = self._known(size, arrays)
            message += "" if n is None or size == str(n) else f", which is {n}"
            passed = dict(zip([p.name for p in self.signature.inputs], arrays, strict=False)).get(name)
            if n is not None and passed is not None and passed.ndim and ((passed < 0) | (passed >= n)).any():
                bad = np.argwhere((passed < 0) | (passed >= n))
                row = passed_rows(bad[:1, 0], len(passed), rows)[0]
                message = (
                    f"`{name}` is {passed[tuple(bad[0])]} in row {row}, but must be from 0 to {n - 1} here: {message}"
                )
                help = "labels and indices count from 0"
                if classes is not None:
                    help = f"the data have {len(classes)} classes: {listed(classes)}"
        raise argument_error("E0607", f"{message}, in {self.signature.name}", help)

    def _known(self, text: str, arrays: Sequence[Array]) -> int | None:
        """A size as the shapes of the inputs determine it."""
        size = parse_size(text)
        shapes = [(w.axes, a.shape) for w, a in zip(self.wants, arrays, strict=False)]
        sizes = {s: n for axes, shape in shapes for s, n in zip(axes, shape, strict=False) if isinstance(s, str)}
        if isinstance(size, Size) and not symbols(size) <= sizes.keys():
            return None
        return _value(size, sizes)


def _restore(kept: Sequence[tuple[Array, Array]]) -> None:
    for array, before in kept:
        np.copyto(array, before)


def _value(dim: Dim, sizes: Mapping[str, int]) -> int:
    try:
        value = substitute(dim, sizes)
    except ZeroDivisionError:
        raise argument_error("E0606", f"the size {dim} divides by zero") from None
    if not isinstance(value, int):
        raise error("E0601", f"the size {dim} is not determined by the inputs", kind=ArgumentError)
    return value


def _count(names: Sequence[str]) -> str:
    if not names:
        return "no inputs"
    return f"{len(names)} input{'s' if len(names) > 1 else ''} ({', '.join(names)})"
