"""What a compiled program tells the runtime: variables, entry points and how to train. Plain data, JSON both ways, so
that a cached program runs without parsing or building anything.

The builder makes it, the cache stores it beside the object code, the runtime reads nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from ..dsl.record import dataclass, field
from .types.facts import Relation
from .types.sizes import Dim, parse_size, substitute
from .types.stacks import members
from .types.tensors import TensorType

LINE = 64  # bytes of the cache, at one of which an arena begins
# the entries that a model may have; all others are exports, or functions where there is no model
ENTRIES = ("init", "predict", "train", "evaluate", "loss", "gradients", "taps")

# A step of training in shards is entries `train.0`, `train.1` ..., see `passes.cut`. Among their results and inputs are
# sums over shards and what a shard keeps for a later stage; the last stage has no such results. Two sizes are arguments
# of their own: the examples of the batch before the shard, and those of all of it.
STAGE = "train."
ACROSS, KEPT = "across ", "kept "
FIRST, WHOLE = "batch.first", "batch.whole"


@dataclass(frozen=True, slots=True)
class Variable:
    """A parameter, a piece of state or an optimiser slot. `path` is its name everywhere: `Mlp.dense_1.W`; optimiser
    slots are `Mlp.dense_1.W/m`; training's own state `train/t` (steps done, i64), `train/epoch`, `train/steps` (steps
    in all), `train/seed`; normalisation `normalize/x/mean`, `normalize/x/scale`; the running average of a parameter
    `average/Mlp.dense_1.W`; where gradients accumulate their sums `accumulated/Mlp.dense_1.W`."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    role: str  # weight, bias, state (model), average, slot (optimiser), train, normalize


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of an entry point. `shape` holds ints and symbolic sizes; `default` is what a scalar input of
    an export stands for when the call leaves it out."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    default: int | float | bool | None = None

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class GuardSpec:
    """One of these relations of sizes must hold at run time."""

    relations: tuple[Relation, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Signature:
    """One entry point. Its native slots are, in this order: inputs, variables (including those it updates), prepared,
    outputs. `sizes` is the order of the native size arguments; `arena` in bytes, `microbatch` the size that counts
    examples and how many of them are run at a time, where it runs no more.

    What is computed of variables alone is `prepared`: a second native entry, `NAME.prepare`, writes it, and is called
    before the first call and whenever one of `variables` has been changed. It has no sizes, and of the slots those of
    the variables and of what is prepared; `preparing` is its arena in bytes.

    Where there are `marks`, one more slot is that of an i64 in which k + 1 is found as soon as the results that
    `marks[k]` names, and those before, are complete.

    Entries of a model: `init` (input `seed`: i64; writes every variable but train/* and normalize/*), `predict`,
    `train` (one step: outputs are the metrics, `loss` first), `evaluate` (the same outputs, inference, no updates),
    `loss` and `gradients` (training mode; gradients by variable path, then by input name), `taps`, and each export.
    """

    name: str
    sizes: tuple[str, ...]
    inputs: tuple[Port, ...]
    variables: tuple[str, ...]
    updates: tuple[str, ...]  # the variables it writes, a subset of `variables`
    outputs: tuple[Port, ...]
    guards: tuple[GuardSpec, ...]
    arena: Dim
    checks: tuple[str, ...] = ()  # message of check code k + 1
    prepared: tuple[Port, ...] = ()  # their shapes are numbers
    preparing: int = 0
    microbatch: tuple[str, int] | None = None
    marks: tuple[tuple[str, ...], ...] = ()

    def at_once(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The sizes of what runs at a time in a call at these: of a micro-batch where the batch is larger."""
        most = dict([self.microbatch] if self.microbatch is not None else [])
        return {name: min(n, most.get(name, n)) for name, n in sizes.items()}

    def scratch(self, sizes: Mapping[str, int], threads: int) -> Dim:
        """Bytes of arena that a call at these sizes is to be given: threads may run a micro-batch each."""
        if self.microbatch is None or self.at_once(sizes) == sizes:
            return self.arena
        size, length = self.microbatch
        one = (substitute(self.arena, {size: length}) + LINE - 1) // LINE * LINE
        return one * threads if 2 * (sizes[size] // length) > threads else one


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A scalar output of `train` and `evaluate`. Over an epoch: 'mean' weighs batches by their examples, 'sum' adds."""

    name: str
    over: str  # mean, sum
    hidden: bool = False  # only there for `stop when`
    minimized: bool = False  # a loss


@dataclass(frozen=True, slots=True)
class DataSpec:
    """`data = csv("iris.csv", target = "species")`: the source's name and its literal arguments."""

    source: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainSpec:
    """The train block, settings as written or their defaults."""

    inputs: tuple[str, ...]  # of the entry `train`: model inputs first, then targets
    batch_size: str | None  # the symbol that counts examples, None where there is none
    batch: int | None  # None: the whole data set at once
    epochs: int
    seed: int
    shuffle: bool
    validation: float
    data: DataSpec | None
    normalize: str | None  # standard, standard_all, minmax
    metrics: tuple[MetricSpec, ...]  # `loss` first where there is one
    stop: Any = None  # ["<=", ["metric", "errors"], ["const", 0]]; operators < <= > >= == != and or not + - * /
    patience: int | None = None
    accumulate: int = 1  # batches in a step of the optimiser
    shards: int | None = None  # of a batch, each with sums of its own; None: a batch is one
    trained: dict[str, str] = field(default_factory=dict)  # of several losses, the one that each parameter learns from
    bound_by: str | None = None  # what in the model needs the examples together and in order, None where nothing does

    @property
    def losses(self) -> tuple[str, ...]:
        """The metrics that training makes small."""
        return tuple(m.name for m in self.metrics if m.minimized)


# what the free sizes of these inputs are in the data of a train block
DataSizes = Callable[[TrainSpec, tuple[Port, ...]], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class HyperSpec:
    name: str
    kind: str  # int, float, bool, str
    value: Any
    default: Any
    choices: Any  # None, ["in", [..]], ["range", lo, hi], ["log", lo, hi]


@dataclass(frozen=True, slots=True)
class Manifest:
    model: str | None
    dtype: str
    variables: tuple[Variable, ...]
    entries: tuple[str, ...]  # the names; each entry is compiled, cached and loaded by itself
    train: TrainSpec | None
    hypers: tuple[HyperSpec, ...]
    sizes: dict[str, int]
    sources: dict[str, str]  # name -> text of every user file that was read
    warnings: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()  # of variables that are stored one after the other (`types.stacks`)
    files: dict[str, str] = field(default_factory=dict)  # name -> sha256 of every file whose numbers are in the code

    @property
    def laid(self) -> list[Variable]:
        """The variables in the order in which they lie: those of a stack one after the other."""
        of = {path: stack for stack in self.stacks for path in members(stack)}
        by_path = {v.path: v for v in self.variables}
        paths = dict.fromkeys(path for v in self.variables for path in members(of.get(v.path, v.path)))
        return [by_path[path] for path in paths]


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in x]
    return x if x is None or isinstance(x, int | float | str | bool) else str(x)


def _plain_object(x: dict[str, Any]) -> dict[str, Any]:
    return {k: _plain(v) for k, v in x.items()}


def _dim(x: int | str) -> Dim:
    return x if isinstance(x, int) else parse_size(x)


def signature_to_json(s: Signature) -> dict[str, Any]:
    """Plain JSON; symbolic sizes become text."""
    return _plain_object(
        {
            "name": s.name,
            "sizes": s.sizes,
            "variables": s.variables,
            "updates": s.updates,
            "arena": s.arena,
            "checks": s.checks,
            "inputs": [(p.name, p.dtype, p.shape, p.default) for p in s.inputs],
            "outputs": [(p.name, p.dtype, p.shape) for p in s.outputs],
            "prepared": [(p.name, p.dtype, p.shape) for p in s.prepared],
            "preparing": s.preparing,
            "microbatch": s.microbatch,
            "marks": s.marks,
            "guards": [([(r.left, r.op, r.right) for r in g.relations], g.message) for g in s.guards],
        }
    )


def signature_from_json(e: dict[str, Any]) -> Signature:
    """The inverse of `signature_to_json`."""

    def port(p: list[Any]) -> Port:
        return Port(p[0], p[1], tuple(map(_dim, p[2])), *p[3:])

    return Signature(
        e["name"],
        tuple(e["sizes"]),
        tuple(map(port, e["inputs"])),
        tuple(e["variables"]),
        tuple(e["updates"]),
        tuple(map(port, e["outputs"])),
        tuple(GuardSpec(tuple(Relation(_dim(a), op, _dim(b)) for a, op, b in rs), m) for rs, m in e["guards"]),
        _dim(e["arena"]),
        tuple(e["checks"]),
        tuple(map(port, e["prepared"])),
        e["preparing"],
        tuple(e["microbatch"]) if e["microbatch"] is not None else None,
        tuple(map(tuple, e["marks"])),
    )


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """Plain JSON."""
    return _plain_object(asdict(manifest))


def manifest_from_json(data: dict[str, Any]) -> Manifest:
    """The inverse of `manifest_to_json`."""
    train = data["train"]
    if train is not None:
        spec = train["data"]
        train = TrainSpec(
            **{
                **train,
                "inputs": tuple(train["inputs"]),
                "data": DataSpec(spec["source"], tuple(spec["args"]), spec["kwargs"]) if spec else None,
                "metrics": tuple(MetricSpec(**m) for m in train["metrics"]),
            }
        )
    return Manifest(
        **{
            **data,
            "train": train,
            "entries": tuple(data["entries"]),
            "warnings": tuple(data["warnings"]),
            "stacks": tuple(data["stacks"]),
            "variables": tuple(Variable(**{**v, "shape": tuple(v["shape"])}) for v in data["variables"]),
            "hypers": tuple(HyperSpec(**h) for h in data["hypers"]),
        }
    )
