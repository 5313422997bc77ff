"""One pass of an entry point over a data set, batch by batch, inside native code.

In: an entry whose inputs have the batch symbol as (a factor of) their first axis, and whole arrays. Out: the metrics
of the whole set: means weighed by examples, or sums. The native loop gathers the rows of a batch, runs the step and
adds up; it comes back to Python only where it is told to stop, so a step costs no Python at all. Where a column stays
on disk, the rows of some batches are read into a block, over which the native loop runs: memory holds one block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import POINTER, c_double, c_int64, c_void_p, cast
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...compiler.manifest import MetricSpec, Port, TrainSpec
from ...compiler.native.loading import HALF_DONE, INTERRUPTED, EpochInput, EpochJob, EpochSum
from ...compiler.types.sizes import Dim, substitute, symbols
from ...dsl.errors import ArgumentError
from ..call.arrays import address_of, aligned
from ..call.calls import Call
from ..call.column import Array, Column, Rows
from ..call.messages import argument_error
from ..data.order import permutation

DTYPE_CODES: Mapping[str, int] = {"f32": 0, "f64": 1, "i32": 2, "i64": 3, "bool": 4}
_BLOCK_BYTES = 32 << 20  # of what is read at a time
_FIRST_CHUNK = 1  # batch, before it is known how long one takes
_CHUNK_SECONDS = 0.15  # how long native code runs before Python is asked again
_SHARES = 16  # shards where several processes train and nobody says how many
T = TypeVar("T")
KIND_CODES: Mapping[str, int] = {"mean": 0, "sum": 1}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the examples come from, for errors about them: their rows in what the user passed (None: as they are), and
    the names of the classes where the target was text."""

    rows: Array | None = None
    classes: Sequence[str] | None = None

    def indices(self, chosen: Array) -> Array:
        return chosen if self.rows is None else self.rows[chosen]


def usual_shards(ranks: int, plain: bool) -> int:
    """How many shards so many processes share where nobody says it: always the same, so that the bits are; or where
    their sums are `plain`, as few as there can be."""
    return 1 << (ranks - 1).bit_length() if plain else _SHARES


class HalfDone(Exception):
    """A step was interrupted when some variables were new and some were not."""


class Sweep:
    """`call` over `arrays` (bound to its inputs, in order) in batches. Where the entry has no batch symbol, the whole
    set is one example, and one pass is one step."""

    shards = 1  # of a batch
    epoch = 0  # that it is under way, from 0

    def __init__(
        self,
        call: Call,
        arrays: Sequence[Rows],
        sizes: Mapping[str, int],
        spec: TrainSpec,
        batch: int | None,
        metrics: Sequence[MetricSpec],
        origin: Origin | None = None,
    ):
        signature, symbol = call.signature, spec.batch_size
        self.call, self.metrics, self.origin = call, tuple(metrics), origin or Origin()
        self.measured = call  # whose outputs the metrics are
        self.symbol = symbol if symbol in signature.sizes else None
        self.examples = sizes[self.symbol] if self.symbol else 1
        self.batch = max(1, min(batch or self.examples, self.examples))
        self.steps = -(-self.examples // self.batch)
        in_parts = self.steps > 1 or self.shards > 1
        self._cut = rows_per_example(signature.inputs, spec) if in_parts else [0] * len(signature.inputs)
        if not in_parts:  # all of it is read at once
            arrays = [a[:] if isinstance(a, Column) else a for a in arrays]
        self.done = 0  # steps of the run that is under way, or was last; also of one that failed
        self._chunk = self.batch * _FIRST_CHUNK  # examples to run before Python is asked again
        self.sizes = {**sizes, **({self.symbol: self.batch} if self.symbol else {})}
        self.totals = np.zeros(len(self.metrics))
        self._arrays = list(arrays)
        self._prepare(arrays)

    def _prepare(self, arrays: Sequence[Rows]) -> None:
        """Make ready what runs again and again."""
        self._sized = self.call.sized(self.sizes)
        if self.symbol and self.examples % self.batch:
            self._check_last(self.examples % self.batch)
        self._block = self._block_size(arrays) if any(isinstance(a, Column) for a in arrays) else 0  # examples
        self._staged: list[tuple[Array, Rows, int]] = []  # what a block holds, of what, and how many rows an example
        self._keep: list[Any] = []  # whatever the job points to
        self._job = self._make_job(arrays)

    def order(self, seed: int, epoch: int) -> Array | None:
        """Who comes when in an epoch (None: as they stand); what is one step stays as it stands."""
        return permutation(self.examples, seed, epoch) if self.steps > 1 else None

    def _check_last(self, count: int) -> None:
        """The guards must hold for the last batch as well, which is smaller than the others."""
        assert self.symbol is not None
        try:
            self.call.sized({**self.sizes, self.symbol: count})
        except ArgumentError as e:
            d = e.diagnostics[0]
            more = (
                f"the last batch has {count} of the {self.examples} examples: choose another `batch` than "
                f"{self.batch}, or drop {'an example' if count == 1 else f'{count} examples'}"
            )
            raise ArgumentError(replace(d, message=f"{d.message}, in the last batch", help=(*d.help, more))) from None

    def _block_size(self, arrays: Sequence[Rows]) -> int:
        """How many examples, whole batches, are read from disk at a time."""
        each = sum(a.nbytes for a in arrays) // max(1, self.examples)
        return max(1, _BLOCK_BYTES // max(1, each * self.batch)) * self.batch

    def _make_job(self, arrays: Sequence[Rows]) -> EpochJob:
        signature = self.call.signature
        slots = self.call.slots_copy()
        gathered: list[EpochInput] = []
        for k, (port, array, factor) in enumerate(zip(signature.inputs, arrays, self._cut, strict=True)):
            row_bytes = array.nbytes // self.examples if self.examples else 0
            if factor and self._block:
                many = min(self._block, self.examples)
                block = aligned((factor * many, *array.shape[1:]), array.dtype, f"a block of `{port.name}`")
                self._staged.append((block, array, factor))
                gathered.append(EpochInput(address_of(block), row_bytes, k, 0))
                continue
            if isinstance(array, Column):
                array = array[:]
            self._keep.append(array)
            if not factor:
                slots[k] = address_of(array)
                continue
            buffer = aligned((factor * self.batch, *array.shape[1:]), array.dtype, f"a batch of `{port.name}`")
            self._keep.append(buffer)
            gathered.append(EpochInput(address_of(array), row_bytes, k, address_of(buffer)))
        sums = []
        self.outputs = []
        first = self.call.first_output
        positions = {p.name: k for k, p in enumerate(signature.outputs)}
        for k, shape, dtype in self._sized.outputs:
            out = aligned(shape, dtype, "an output")
            self.outputs.append(out)
            slots[k] = address_of(out)
        for m in self.metrics:
            port = signature.outputs[positions[m.name]]
            sums.append(EpochSum(first + positions[m.name], DTYPE_CODES[port.dtype], KIND_CODES[m.over]))
        job = EpochJob()
        inputs_array = (EpochInput * max(1, len(gathered)))(*gathered)
        sums_array = (EpochSum * max(1, len(sums)))(*sums)
        self._sizes = (c_int64 * max(1, len(signature.sizes)))(*self._sized.sizes)  # the last batch is written here
        self._keep += [slots, inputs_array, sums_array]
        job.sizes = cast(self._sizes, POINTER(c_int64))
        job.batch_index = signature.sizes.index(self.symbol) if self.symbol else -1
        job.slots = cast(slots, POINTER(c_void_p))
        job.batch = self.batch
        job.ninputs, job.inputs = len(gathered), inputs_array
        job.nsums, job.sums = len(sums), sums_array
        job.totals = self.totals.ctypes.data_as(POINTER(c_double))
        return job

    def run(self, position: int, stop: int, order: Array | None) -> tuple[int, int | None]:
        """Examples `position` to `stop` in `order`. Returns the steps done, fewer where a signal came, and, where a
        metric was not finite, the index of that step among them (the loop ends there). Raises `HalfDone` where a signal
        came within a step that had begun to write variables."""
        self.done = 0
        if not self._block:
            return self._run(position, stop, order, self.examples, self._arrays, self.origin.rows)
        while position < stop:
            last = min(stop, position + self._block)
            index = order[position:last] if order is not None else np.arange(position, last)
            blocks = []
            for block, rows, factor in self._staged:
                blocks.append(block[: factor * len(index)])
                blocks[-1][...] = take_rows(rows, self.examples, factor, index)[:]
            before = self.done
            _, bad = self._run(0, len(index), None, len(index), blocks, self.origin.indices(index))
            if bad is not None:
                return self.done, before + bad
            if self._job.position < len(index):
                break
            position = last
        return self.done, None

    def _run(
        self, position: int, stop: int, order: Array | None, examples: int, arrays: Sequence[Any], rows: Array | None
    ) -> tuple[int, int | None]:
        job = self._job
        workspace = self.call.workspace
        job.position, job.stop, job.examples = position, stop, examples
        job.order = order.ctypes.data if order is not None else None
        with workspace.lock:
            if self.symbol:
                self._sizes[job.batch_index] = self.batch
            job.arena, job.pool = workspace.arena(self._sized.arena), workspace.pool
            job.steps, job.nonfinite = 0, -1
            status = self.call.epoch(job)
            self.done += job.steps
        if status == HALF_DONE:
            raise HalfDone
        if status and status != INTERRUPTED:
            self.call.failed(status, arrays, rows, self.origin.classes)
        return job.steps, job.nonfinite if job.nonfinite >= 0 else None

    def write_trace(self, path: Path) -> None:
        """The last steps, where a batch has shards."""

    def agreed(self, value: T) -> T:
        """What one process of several decides, all do."""
        return value

    def where(self, position: int, order: Array | None) -> str:
        """Which part of the batch at `position` gives something that is not finite, in words."""
        return ""

    def chunk_end(self, position: int, steps: int | None = None) -> int:
        """Where to stop for Python to be asked again: after a moment, or after so many steps."""
        return min(position + (self._chunk if steps is None else steps * self.batch), self.examples)

    def adapt(self, steps: int, seconds: float) -> None:
        """Aim the next chunk at `_CHUNK_SECONDS`, growing sixteenfold at most."""
        wanted = steps * _CHUNK_SECONDS / max(seconds, 1e-9)
        self._chunk = self.batch * int(max(1, min(wanted, 16 * self._chunk / self.batch)))

    def results(self, examples: int | None = None) -> dict[str, float | int]:
        """The metrics of the `examples` (default: all) run since `totals` was zero; a sum of ints is an int."""
        examples = self.examples if examples is None else examples
        found: dict[str, float | int] = {}
        dtypes = {p.name: p.dtype for p in self.measured.signature.outputs}
        for m, total in zip(self.metrics, self.totals.tolist(), strict=True):
            if m.over == "sum":
                found[m.name] = int(total) if dtypes[m.name] in ("i32", "i64", "bool") else total
            else:
                found[m.name] = total / examples if examples else float("nan")
        return found

    def output(self, name: str) -> Array:
        """A result of the last step."""
        return self.outputs[[p.name for p in self.measured.signature.outputs].index(name)]

    def index(self, order: Array | None, position: int) -> Array:
        """The examples of the batch that begins at `position`."""
        stop = min(position + self.batch, self.examples)
        return order[position:stop] if order is not None else np.arange(position, stop)

    def rows(self, order: Array | None, position: int) -> list[Array]:
        """The arrays of the batch that begins at `position`, as the native loop gathers them."""
        index = self.index(order, position)
        arrays = []
        for array, factor in zip(self._arrays, self._cut, strict=True):
            chosen = take_rows(array, self.examples, factor, index) if factor else array
            arrays.append(chosen[:] if isinstance(chosen, Column) else chosen)
        return arrays


def rows_per_example(ports: Sequence[Port], spec: TrainSpec) -> list[int]:
    """How many rows of each input one example has; 0 where the input is the same for all examples. Raises
    `ArgumentError` E0611 where the set is not one of independent examples, so that it cannot be cut."""
    symbol = spec.batch_size
    other = next((p for p in ports if p.shape and symbols(p.shape[0]) and symbol not in symbols(p.shape[0])), None)
    if other is not None:
        raise argument_error(
            "E0611",
            f"the set is one example: `{other.name}` is {other.type}, which {symbol} does not count",
            help="train without `batch` and without a share for validation; or give it a fixed size",
        )
    if spec.bound_by is not None:
        raise argument_error(
            "E0611",
            f"the set is one example: {spec.bound_by}",
            help="train without `batch` and without a share for validation",
        )
    return [_rows_of_one(p, symbol) for p in ports]


def _rows_of_one(port: Port, symbol: str | None) -> int:
    dims = port.shape
    if symbol is None or not any(symbol in symbols(d) for d in dims):
        return 0
    factor: Dim = substitute(dims[0], {symbol: 1})
    if (
        any(symbol in symbols(d) for d in dims[1:])
        or not isinstance(factor, int)
        or substitute(dims[0], {symbol: 0}) != 0
    ):
        raise argument_error(
            "E0611",
            f"`{port.name}` is {port.type}, which cannot be cut into batches: {symbol} must "
            "count the first axis and nothing else",
        )
    return factor


def take_rows(array: Rows, examples: int, factor: int, index: Array) -> Rows:
    """The rows of some examples, `factor` rows each: a copy of an array, a view of a column."""
    if isinstance(array, Column):
        return array.select(index if factor == 1 else (index[:, None] * factor + np.arange(factor)).ravel())
    grouped = array.reshape(examples, factor, *array.shape[1:])
    return grouped[index].reshape(len(index) * factor, *array.shape[1:])
