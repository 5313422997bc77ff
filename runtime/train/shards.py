"""A pass of training in shards: a batch is cut into parts of which each has sums of its own, in one process or several.

In: the stages of a step (`compiler/passes/cut`), whole arrays, how many shards there are, and the ranks that share
them. Out: what `sweep` gives, with the same bits for any number of ranks: which examples a shard has depends on the
batch alone, and sums of shards meet in one tree (`distributed/tree`). A rank gathers the rows of its own shards only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from ctypes import addressof, c_int64
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ...compiler.manifest import ACROSS, FIRST, KEPT, WHOLE, MetricSpec, Port, TrainSpec
from ...compiler.native.loading import HALF_DONE, INTERRUPTED
from ...compiler.types.sizes import substitute
from ...dsl.errors import ArgumentError, NncError
from .. import settings
from ..call.arrays import NUMPY, address_of, aligned
from ..call.calls import Call
from ..call.column import Array, Column, Rows
from ..call.messages import argument_error
from ..distributed.ranks import Ranks
from .meeting import Meeting
from .sweep import HalfDone, Origin, Sweep, T, take_rows
from .trace import Spans, write_trace

if TYPE_CHECKING:
    from ..network import Network


@dataclass(slots=True)
class _Stage:
    """What runs for each shard, with slots and sizes of its own."""

    call: Call
    slots: Any
    sizes: Any
    meeting: Meeting
    seconds: float = 0.0  # that a shard takes
    data: list[tuple[int, int]] = field(default_factory=list)  # slot, which of the arrays
    kept: list[tuple[int, Port]] = field(default_factory=list)  # slot, what this stage keeps or is given


class Shards(Sweep):
    """`stages` over `arrays` in batches, each in `shards` parts; this process does those that it owns of `ranks`. With
    `plain` the sums of ranks are added in any order, which is quicker, and its bits depend on how many there are."""

    def __init__(
        self,
        stages: Sequence[Call],
        arrays: Sequence[Rows],
        sizes: Mapping[str, int],
        spec: TrainSpec,
        batch: int | None,
        metrics: Sequence[MetricSpec],
        origin: Origin,
        *,
        shards: int,
        ranks: Ranks | None,
        plain: bool,
    ):
        self.shards, self.ranks = shards, ranks
        self._fault: NncError | None = None  # of a shard of this process
        self.own = ranks.owned(shards) if ranks is not None else range(shards)
        self._calls, self._plain = list(stages), plain
        if ranks is not None:
            ranks.most(0)  # their clocks begin together
        self.spans = Spans()
        super().__init__(stages[0], arrays, {**sizes, FIRST: 0, WHOLE: 0}, spec, batch, metrics, origin)
        self.measured = stages[-1]

    def _prepare(self, arrays: Sequence[Rows]) -> None:
        self.length = -(-self.batch // self.shards)  # examples of a shard, the last ones have fewer
        self._check_sizes()
        self._buffers: dict[tuple[int, int], Array] = {}  # rows of a shard, by shard and array
        self._held: dict[tuple[int, str], Array] = {}  # what shards keep, by shard and name
        self._stages = [self._stage(call) for call in self._calls]
        totals = {name: at for s in self._stages for name, at in s.meeting.totals().items()}
        for stage in self._stages:
            for k, port in enumerate(stage.call.signature.inputs):
                if port.name in totals:
                    stage.slots[k] = totals[port.name]
        last = self._stages[-1]
        sized = last.call.sized(self._sizes_of(self.batch, 0, self.batch))
        self.outputs = []
        for k, shape, dtype in sized.outputs:
            self.outputs.append(aligned(shape, dtype, "an output"))
            last.slots[k] = address_of(self.outputs[-1])

    # --- sizes

    def _sizes_of(self, examples: int, first: int, whole: int) -> dict[str, int]:
        sizes = {**self.sizes, FIRST: first, WHOLE: whole}
        return sizes if self.symbol is None else {**sizes, self.symbol: examples}

    def _lengths(self, whole: int) -> list[int]:
        """How many examples the shards of a batch may have."""
        return list(dict.fromkeys(n for s in range(self.shards) if (n := len(self._rows_of(s, whole)))))

    def _rows_of(self, shard: int, whole: int) -> range:
        """The examples of a batch that a shard has."""
        return range(min(shard * self.length, whole), min((shard + 1) * self.length, whole))

    def _check_sizes(self) -> None:
        """The guards must hold for shards of each size."""
        for whole in dict.fromkeys((self.batch, self.examples % self.batch or self.batch)):
            for n in self._lengths(whole):
                try:
                    for call in self._calls[:-1]:
                        call.sized(self._sizes_of(n, 0, whole))
                except ArgumentError as e:
                    d = e.diagnostics[0]
                    of = f"a batch of {whole} in {self.shards} shards has one of {n}"
                    help = f"{of}: choose another `batch` or fewer `shards`"
                    raise ArgumentError(replace(d, help=(*d.help, help))) from None

    # --- slots

    def _stage(self, call: Call) -> _Stage:
        signature = call.signature
        meeting = Meeting(call, self.sizes, self.ranks, self.shards, self._plain, self.spans)
        stage = _Stage(call, call.slots_copy(), (c_int64 * max(1, len(signature.sizes)))(), meeting)
        names = [p.name for p in self.call.signature.inputs]
        for k, port in enumerate(signature.inputs):
            if port.name in names:
                which = names.index(port.name)
                if self._cut[which]:
                    stage.data.append((k, which))
                else:
                    fixed = self._arrays[which]
                    self._arrays[which] = fixed = fixed[:] if isinstance(fixed, Column) else fixed
                    stage.slots[k] = address_of(fixed)
            elif port.name.startswith(KEPT):
                stage.kept.append((k, port))
        first = call.first_output
        stage.kept += [(first + k, p) for k, p in enumerate(signature.outputs) if p.name.startswith(KEPT)]
        parts = meeting.parts()
        for k, port in enumerate(signature.outputs, first):
            if port.name in parts:
                stage.slots[k] = parts[port.name]
        return stage

    # --- running

    def run(self, position: int, stop: int, order: Array | None) -> tuple[int, int | None]:
        self.done = 0
        while position < stop:
            whole = min(self.batch, self.examples - position)
            if self.ranks is not None:
                self.ranks.at(f"epoch {self.epoch + 1}, step {position // self.batch + 1}")
            if self._step(position, whole, order) == INTERRUPTED:
                break
            position += whole
            self.done += 1
            if not self._add(whole):
                return self.done, self.done - 1
        return self.done, None

    def _step(self, position: int, whole: int, order: Array | None) -> int:
        """One step over a batch; variables are written at its very end."""
        *parts, last = self._stages
        for stage in parts:
            try:
                status = self._shards(stage, position, whole, order)
            except NncError:
                stage.meeting.forget()
                raise
            if status < 0:
                stage.meeting.forget()
                return status
            if stage.meeting.end():
                self._fail()
        status = self._call(last, whole, 0, whole)
        if status == HALF_DONE:
            raise HalfDone
        return status

    def _shards(self, stage: _Stage, position: int, whole: int, order: Array | None) -> int:
        """A stage for all shards that are this process's own, each added to the sums. Processes fail together."""
        meeting, status = stage.meeting, 0
        for shard in self.own:
            last = meeting.handing_on(shard, stage.seconds) if shard == self.own[-1] else nullcontext()
            try:
                with last:
                    status = self._shard(stage, shard, self._rows_of(shard, whole), position, whole, order)
            except NncError as e:
                if self.ranks is None:
                    raise
                self._fault = e
            if status < 0:
                return status
            meeting.add(shard, self._fault is not None)
        return 0

    def _fail(self) -> NoReturn:
        """Raise what the first process met that met anything, in all of them."""
        assert self.ranks is not None
        fault, self._fault = self._fault, None
        raise next(e for e in self.ranks.gather(fault) if e is not None)

    def _shard(self, stage: _Stage, shard: int, rows: range, position: int, whole: int, order: Array | None) -> int:
        """A stage for one shard: what it adds to the sums is then in their parts."""
        if not rows:
            stage.meeting.clear()
            return 0
        arrays = {which: self._gathered(shard, which, position, rows, order, stage is self._stages[0])
                  for _, which in stage.data}  # fmt: skip
        for k, which in stage.data:
            stage.slots[k] = address_of(arrays[which])
        for k, port in stage.kept:
            stage.slots[k] = address_of(self._kept(shard, port))
        status = self._call(stage, len(rows), rows.start, whole)
        if status > 0:
            given = [arrays.get(k, a[:0]) for k, a in enumerate(self._arrays)]
            index = self.index(order, position)[rows.start : rows.stop]
            stage.call.failed(status, given, self.origin.indices(index), self.origin.classes)
        return status

    def _call(self, stage: _Stage, examples: int, first: int, whole: int) -> int:
        call, workspace = stage.call, stage.call.workspace
        sizes = self._sizes_of(examples, first, whole)
        for k, name in enumerate(call.signature.sizes):
            stage.sizes[k] = sizes[name]
        with workspace.lock:
            arena = workspace.arena(call.sized({**sizes, FIRST: 0}).arena)
            begin = perf_counter()
            status = call.step(addressof(stage.sizes), addressof(stage.slots), arena)
            stage.seconds = perf_counter() - begin
            self.spans.add("update" if stage is self._stages[-1] else f"shard at {first}", begin)
        return status

    def write_trace(self, path: Path) -> None:
        write_trace(path, self.spans, self.ranks)

    def agreed(self, value: T) -> T:
        return value if self.ranks is None else self.ranks.first(value)

    def chunk_end(self, position: int, steps: int | None = None) -> int:
        return self.agreed(super().chunk_end(position, steps))

    def where(self, position: int, order: Array | None) -> str:
        whole = min(self.batch, self.examples - position)
        bad = []
        for shard in self.own:
            self._shard(self._stages[0], shard, self._rows_of(shard, whole), position, whole, order)
            if not self._stages[0].meeting.is_finite:
                bad.append(shard)
        everywhere = [bad] if self.ranks is None else self.ranks.gather(bad)
        for rank, shards in enumerate(everywhere):
            if shards:
                return f", shard {shards[0]}" + (f" of rank {rank}" if self.ranks is not None else "")
        return ""

    def _gathered(self, shard: int, which: int, position: int, rows: range, order: Array | None, new: bool) -> Array:
        """The rows of a shard of one of the arrays; they are gathered by the first stage."""
        array, factor = self._arrays[which], self._cut[which]
        start, stop = position + rows.start, position + rows.stop
        if order is None and not isinstance(array, Column):
            return array[factor * start : factor * stop]
        key = (shard if len(self._stages) > 2 else -1, which)
        if key not in self._buffers:
            self._buffers[key] = aligned((factor * self.length, *array.shape[1:]), array.dtype, "rows of a shard")
        buffer = self._buffers[key][: factor * len(rows)]
        if new:
            index = order[start:stop] if order is not None else np.arange(start, stop)
            if factor == 1 and not isinstance(array, Column):
                np.take(array, index, 0, buffer, "clip")
            else:
                buffer[...] = take_rows(array, self.examples, factor, index)[:]
        return buffer

    def _kept(self, shard: int, port: Port) -> Array:
        """Where a shard keeps something for its later stages."""
        key = (shard, port.name)
        if key not in self._held:
            sizes = self._sizes_of(self.length, 0, self.batch)
            shape = [substitute(n, sizes) for n in port.shape]
            self._held[key] = aligned([n for n in shape if isinstance(n, int)], NUMPY[port.dtype], "what a shard keeps")
        return self._held[key]

    def _add(self, whole: int) -> bool:
        """Add a step's metrics up; whether all are finite."""
        clean = True
        for k, m in enumerate(self.metrics):
            value = float(self.output(m.name))
            self.totals[k] += value * whole if m.over == "mean" else value
            clean = clean and np.isfinite(value)
        return bool(clean)


def ranks_of(comm: Any) -> Ranks:
    """The processes of what is passed as `comm` (E0602)."""
    if isinstance(comm, Ranks):
        return comm
    if not hasattr(comm, "Get_rank"):
        raise settings.wrong_type("comm", "what `nnc.distributed.init()` gives, or a communicator of mpi4py", comm)
    return Ranks(comm)


def stages_of(network: Network, shards: int | None) -> list[Call]:
    """The entries that a step in shards consists of (E0603, E0611 where there cannot be so many)."""
    if shards is None:
        raise argument_error("E0603", "processes share the shards of a batch, but this fit began without `shards`")
    settings.integer("shards", shards, settings.LEAST["shards"])
    if shards & (shards - 1):
        raise argument_error("E0603", f"shards must be a power of two, got {shards}")
    if network.train_spec.batch_size is None:
        raise argument_error("E0611", "there are no shards of a batch: no size of the inputs counts examples")
    found: list[Call] = []
    while not found or any(p.name.startswith(ACROSS) for p in found[-1].signature.outputs):
        found.append(network.stage(len(found)))
    return found
