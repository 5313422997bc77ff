"""A compiled program made by hand: entry points in NumPy behind the same pointers as machine code.

The model is `y = x @ W + b` with a mean squared error, gradient descent with a velocity, and a running mean of x. It
lets the runtime be tested alone, and be driven into corners (failing checks, values that are not finite) at will.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import pytest

from nnc.compiler.manifest import GuardSpec, Manifest, MetricSpec, Port, Signature, TrainSpec, Variable
from nnc.compiler.types.facts import Relation
from nnc.compiler.types.sizes import substitute, symbol
from nnc.runtime.call.arrays import NUMPY
from nnc.runtime.model import Model

B = symbol("B")
DTYPES = ("f32", "f64", "i32", "i64", "bool")


def view(address: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if prod(shape) == 0:
        return np.empty(shape, NUMPY[dtype])
    raw = (ctypes.c_char * (prod(shape) * NUMPY[dtype].itemsize)).from_address(address)
    return np.frombuffer(raw, NUMPY[dtype]).reshape(shape)


@dataclass
class FakeNative:
    """`body(inputs, variables, outputs)` gets arrays by name and writes variables and outputs in place."""

    signature: Signature
    variables: dict[str, Variable]
    body: Callable[..., int | None]
    calls: list[tuple[int, ...]] = field(default_factory=list)
    prepare: None = None

    def run(self, sizes: Any, slots: Any, arena: int, pool: Any) -> int:
        s = self.signature
        if isinstance(sizes, int):  # an address, as machine code takes it
            sizes = (ctypes.c_int64 * max(1, len(s.sizes))).from_address(sizes)
            slots = (ctypes.c_void_p * 64).from_address(slots)
        known = {name: int(sizes[k]) for k, name in enumerate(s.sizes)}
        self.calls.append(tuple(known.values()))

        def shaped(port: Port) -> tuple[int, ...]:
            return tuple(substitute(d, known) for d in port.shape)

        found = [view(slots[k], p.dtype, shaped(p)) for k, p in enumerate(s.inputs)]
        inputs = dict(zip([p.name for p in s.inputs], found, strict=True))
        at = len(found)
        variables = {}
        for path in s.variables:
            v = self.variables[path]
            variables[path] = view(slots[at], v.dtype, v.shape)
            at += 1
        outputs = {p.name: view(slots[at + k], p.dtype, shaped(p)) for k, p in enumerate(s.outputs)}
        return self.body(inputs, variables, outputs) or 0

    def epoch(self, job: Any) -> int:
        """What the native epoch loop does, step by step."""
        position, steps = job.position, 0
        while position < job.stop:
            count = min(job.batch, job.examples - position)
            if job.batch_index >= 0:
                job.sizes[job.batch_index] = count
            for k in range(job.ninputs):
                i = job.inputs[k]
                rows = view(i.rows, "bool", (job.examples * i.row_bytes,)).view(np.uint8).reshape(job.examples, -1)
                order = view(job.order, "i64", (job.examples,)) if job.order else np.arange(job.examples)
                target = view(i.buffer, "bool", (count * i.row_bytes,)).view(np.uint8).reshape(count, -1)
                target[:] = rows[order[position : position + count]]
                job.slots[i.slot] = i.buffer
            status = self.run(job.sizes, job.slots, job.arena, job.pool)
            if status:
                return status
            bad = False
            for k in range(job.nsums):
                s = job.sums[k]
                value = float(view(job.slots[s.slot], DTYPES[s.dtype], ())[()])
                job.totals[k] += value * (count if s.kind == 0 else 1)
                bad |= not np.isfinite(value)
            steps += 1
            job.steps = steps
            position += count
            if bad:
                job.nonfinite = steps - 1
                break
        job.position = position
        return 0


@dataclass
class FakeSession:
    manifest: Manifest
    natives: dict[str, FakeNative]
    pools: list[int] = field(default_factory=list)

    def entry(self, name: str) -> FakeNative:
        return self.natives[name]

    def pool(self, threads: int) -> int:
        self.pools.append(threads)
        return 0

    def origin(self, *args: object) -> None:
        return None


X, Y, T = Port("x", "f32", (B, 3)), Port("y", "f32", (B,)), Port("target", "f32", (B,))
VARIABLES = (
    Variable("Line.W", "f32", (3,), "weight"), Variable("Line.b", "f32", (), "bias"),
    Variable("Line.mean", "f32", (3,), "state"), Variable("Line.W/m", "f32", (3,), "slot"),
    Variable("Line.b/m", "f32", (), "slot"), Variable("train/t", "i64", (), "train"),
    Variable("train/epoch", "i64", (), "train"), Variable("train/steps", "i64", (), "train"),
    Variable("train/seed", "i64", (), "train"), Variable("normalize/x/mean", "f32", (3,), "normalize"),
    Variable("normalize/x/scale", "f32", (3,), "normalize"),
)  # fmt: skip
PATHS = tuple(v.path for v in VARIABLES)
METRICS = (
    MetricSpec("loss", "mean", minimized=True),
    MetricSpec("errors", "sum"),
    MetricSpec("size", "mean", hidden=True),
)


def outputs_of(i: dict, v: dict) -> np.ndarray:
    x = (i["x"] - v["normalize/x/mean"]) / v["normalize/x/scale"]
    return x @ v["Line.W"] + v["Line.b"]


def metrics(i: dict, v: dict, o: dict) -> None:
    error = outputs_of(i, v) - i["target"]
    o["loss"][...] = np.mean(error**2)
    o["errors"][...] = np.sum(np.abs(error) > 0.5)
    o["size"][...] = np.sqrt(np.sum(v["Line.W"] ** 2))


def gradients(i: dict, v: dict) -> dict[str, np.ndarray]:
    x = (i["x"] - v["normalize/x/mean"]) / v["normalize/x/scale"]
    d = 2 * (outputs_of(i, v) - i["target"]) / len(x)
    return {"Line.W": d @ x, "Line.b": d.sum(), "x": d[:, None] * v["Line.W"] / v["normalize/x/scale"]}


def make_session(lr: float = 0.1, spec: dict[str, Any] | None = None) -> FakeSession:
    def init(i: dict, v: dict, o: dict) -> None:
        v["Line.W"][...] = np.random.default_rng(int(i["seed"])).normal(size=3)
        for path in ("Line.b", "Line.mean", "Line.W/m", "Line.b/m"):
            v[path][...] = 0

    def predict(i: dict, v: dict, o: dict) -> None:
        o["y"][...] = outputs_of(i, v)

    def train(i: dict, v: dict, o: dict) -> None:
        with np.errstate(all="ignore"):
            metrics(i, v, o)
            for path, g in list(gradients(i, v).items())[:2]:
                v[path + "/m"][...] = 0.5 * v[path + "/m"] + g
                v[path][...] -= np.float32(lr) * v[path + "/m"]
        v["Line.mean"][...] = 0.9 * v["Line.mean"] + 0.1 * i["x"].mean(0)
        v["train/t"][...] += 1

    def gradient(i: dict, v: dict, o: dict) -> None:
        with np.errstate(all="ignore"):
            for name, g in gradients(i, v).items():
                o[name][...] = g

    def loss(i: dict, v: dict, o: dict) -> None:
        with np.errstate(all="ignore"):
            o["loss"][...] = np.mean((outputs_of(i, v) - i["target"]) ** 2)

    def taps(i: dict, v: dict, o: dict) -> None:
        o["Line.dot"][...] = i["x"] @ v["Line.W"]

    def both(i: dict, v: dict, o: dict) -> int:
        o["double"][...], o["sum"][...] = i["x"] * i["rate"], i["x"].sum()
        return 2 if i["rate"] < 0 else 0

    metric_ports = (Port("loss", "f32", ()), Port("errors", "i32", ()), Port("size", "f32", ()))
    learned = PATHS[:6]
    entries = {
        "init": ((Port("seed", "i64", ()),), PATHS[:5], (), init),
        "predict": ((X,), (), (Y,), predict),
        "train": ((X, T), learned, metric_ports, train),
        "evaluate": ((X, T), (), metric_ports, metrics),
        "loss": ((X, T), (), (Port("loss", "f32", ()),), loss),
        "gradients": ((X, T), (), (Port("Line.W", "f32", (3,)), Port("Line.b", "f32", ()), X), gradient),
        "taps": ((X,), (), (Port("Line.dot", "f32", (B,)),), taps),
        "both": ((X, Port("rate", "f32", (), 2.0)), (), (Port("double", "f32", (B, 3)), Port("sum", "f32", ())), both),
    }
    natives = {}
    by_path = {v.path: v for v in VARIABLES}
    for name, (inputs, updates, outputs, body) in entries.items():
        guards = (GuardSpec((Relation(B % 2, "==", 0),), "B must be even"),) if name == "both" else ()
        signature = Signature(
            name,
            ("B",) if name != "init" else (),
            inputs,
            PATHS,
            updates,
            outputs,
            guards,
            64 * B if name != "init" else 0,
            ("first check", "rate must not be negative"),
        )
        natives[name] = FakeNative(signature, by_path, body)
    settings = {
        "inputs": ("x", "target"), "batch_size": "B", "batch": 8, "epochs": 3, "seed": 7, "shuffle": True,
        "validation": 0.0, "data": None, "normalize": None, "metrics": METRICS,
    }  # fmt: skip
    train_spec = TrainSpec(**{**settings, **(spec or {})})
    manifest = Manifest("Line", "f32", VARIABLES, tuple(entries), train_spec, (), {}, {"line.nn": "model Line"})
    return FakeSession(manifest, natives)


@pytest.fixture
def session() -> FakeSession:
    return make_session()


@pytest.fixture
def net(session: FakeSession) -> Model:
    return Model(session, threads=1)


@pytest.fixture
def make() -> Callable[..., Model]:
    """`make(lr=0.1, threads=1, **train block settings)`"""

    def build(lr: float = 0.1, seed: int | None = None, **spec: Any) -> Model:
        return Model(make_session(lr, spec), threads=1, seed=seed)

    return build


@pytest.fixture
def examples() -> tuple[np.ndarray, np.ndarray]:
    """43 examples, which is not a multiple of the batch."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(43, 3)).astype(np.float32)
    return x, (x @ np.float32([1, -2, 3]) + 0.5).astype(np.float32)
