"""Whether one program is compiled right.

In: a `Program` and the checks to make. Out: a `Verdict`: ok, refused by a typed error, or failed, with a signature that
groups failures of one kind.

The reference is the interpreter on the graph as it was written, in float64. How far another way to compute the same may
be off is measured, not guessed: the reference runs again with every inexact result moved by a `NOISE` (relative to it;
in a sum, to the random walk of its terms), so what cancels, what is near a jump and what two roundings may decide has a
wide tolerance, and nothing else has.
"""

from __future__ import annotations

import random
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from nnc.compiler import passes
from nnc.compiler.graph import interpret
from nnc.compiler.graph.interpret import Arrays, evaluate
from nnc.compiler.graph.nodes import Graph, Node
from nnc.compiler.graph.ops.contraction import is_gathered
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.lowering import microbatches
from nnc.compiler.lowering.kernels import sharing
from nnc.compiler.native import objects as native
from nnc.compiler.passes.rewrite import assemble
from nnc.compiler.pipeline import Stages
from nnc.compiler.scalar import FUNCTIONS
from nnc.compiler.session import Native, Session
from nnc.compiler.settings import Settings
from nnc.compiler.types.tensors import FLOATS
from nnc.dsl.errors import ArgumentError, InternalError, NncError, error
from nnc.dsl.source import Source

from . import plain, steps
from .machine import THREADS, Guarded, Memory, call
from .program import Program, Sizes, arguments

NOISE = {"f64": 2.0**-42, "f32": 2.0**-21}  # relative, of each operation: some bits more than its rounding
SLACK = {"f64": 1e-11, "f32": 1e-5}  # relative to the largest of a result
RUNS = (3, 24)  # of the noise: at first, and before something is called wrong
SPREAD = 30  # how far beyond what the noise did
COMPILE_SECONDS = 5.0  # of CPU
INEXACT = frozenset(
    {
        *(f.name for f in FUNCTIONS.values() if f.ulp),
        *"add sub mul div reduce_sum reduce_prod contract scatter_add scatter_mul add_along recurrence random".split(),
    }
)
SUMS = frozenset({"reduce_sum", "contract", "scatter_add", "add_along", "recurrence"})
NOT_FINITE = 1e30  # beyond it a float32 overflows soon, and sums in another order with it

CHECKS = ("meaning", "compiled", "gradients", "passes", "unoptimised", "single", "threads")


@dataclass(frozen=True)
class Verdict:
    kind: str  # "ok", "refused" or "failed"
    signature: str = ""
    message: str = ""


class Wrong(Exception):
    """A judgement: what was compared, and how it differs."""

    def __init__(self, signature: str, message: str):
        super().__init__(signature, message)
        self.signature, self.message = signature, message


class TooLong(Exception):
    """Compilation used more CPU than it may."""


def judge(program: Program, checks: Sequence[str] = CHECKS, guard_pages: bool = False) -> Verdict:
    """All `checks` on all entries. Never raises for what a program does."""
    try:
        _judge(program, checks, guard_pages)
    except Wrong as e:
        return Verdict("failed", e.signature, e.message)
    except InternalError as e:
        return Verdict("failed", f"internal: {wording(e.diagnostics[0].message)}", str(e))
    except NncError as e:
        return Verdict("refused", e.code, str(e))
    except TooLong as e:
        return Verdict("failed", f"slow: {place(e)}", traceback.format_exc(limit=-6))
    except Exception as e:  # a raw exception is what we look for
        return Verdict("failed", f"raised: {type(e).__name__} at {place(e)}", traceback.format_exc(limit=-6))
    return Verdict("ok")


def _judge(program: Program, checks: Sequence[str], guard_pages: bool) -> None:
    entries = ("f",)
    if program.text.startswith("model "):
        entries = ("train", "predict") if "\ntrain " in program.text else ("predict",)
    text = program.text
    if "gradients" in checks and entries == ("f",):
        text, entries = with_gradients(program), ("f", "gradient_of_f")
    sessions = _Sessions(text)
    for entry in entries:
        one = _Entry(replace(program, text=text), entry, sessions)
        if entry == "gradient_of_f" and program.values == "normal":
            _differences(one)
        if "meaning" in checks and entry == "f":
            _meaning(one)
        if entry == "train":
            _step(one)
        if "passes" in checks:
            _passes(one)
        if "compiled" in checks:
            _compiled(one, "f64", memories=_memories(guard_pages))
        if "unoptimised" in checks:
            _compiled(one, "f64", optimize=False, memories=_memories(guard_pages))
        if "single" in checks:
            _compiled(one, "f32", memories=_memories(guard_pages))
        if "threads" in checks:
            _threads(one)


def _memories(guard_pages: bool) -> tuple[Callable[[], Memory], ...]:
    return (partial(Guarded, at_end=True), partial(Guarded, at_end=False)) if guard_pages else (Memory,)


def wording(message: str) -> str:
    """A message without its numbers and names."""
    return " ".join("_" if any(c.isdigit() for c in word) else word for word in message.split())[:80]


def place(e: BaseException) -> str:
    """The innermost function of a stage; what all stages ask, the graph and the sizes, says little."""
    paths = [(Path(f.filename), f.name) for f in traceback.extract_tb(e.__traceback__)]
    frames = [(p.parent.name, p.name, name) for p, name in paths]
    stages = [f for f in frames if f[0] in ("kernels", "llvm", "passes", "ops", "elaborate", "builtins", "dsl")]
    room, file, name = (stages or [f for f in frames if f[0] == "compiler"] or frames)[-1]
    return f"{room}/{file}:{name}"


# --- compilation -----------------------------------------------------------------------------------------------------


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises `TooLong` inside after so many seconds of CPU."""

    def stop(*_: object) -> None:
        raise TooLong(f"{seconds} s of CPU")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class _Sessions:
    """The sessions of one text, and the stages of its entries: each is made once."""

    def __init__(self, text: str):
        self._text = text
        self._sessions: dict[tuple[str, bool], Session] = {}
        self._stages: dict[tuple[str, str, bool], Stages] = {}

    def __call__(self, dtype: str, optimize: bool = True) -> Session:
        if (dtype, optimize) not in self._sessions:
            settings = Settings(cache=False, dtype=dtype, optimize=optimize)
            self._sessions[dtype, optimize] = Session(Source("f.nn", self._text), settings)
        return self._sessions[dtype, optimize]

    def stages(self, name: str, dtype: str = "f64", optimize: bool = True) -> Stages:
        key = name, dtype, optimize
        if key not in self._stages:
            with limited(COMPILE_SECONDS):
                self._stages[key] = self(dtype, optimize).stages(name)
        return self._stages[key]

    def code(self, name: str, dtype: str = "f64", optimize: bool = True) -> Native:
        made = self.stages(name, dtype, optimize)
        with limited(COMPILE_SECONDS):
            return code_of(self(dtype, optimize), made)


def code_of(session: Session, made: Stages) -> Native:
    """Stages as machine code, without the cache."""
    data = native.compile_object(session.llvm(made), session.target)
    return Native(made.signature, data, session.support.epoch)


class _Entry:
    """One entry of a program, in float64: its graphs, arguments and reference results for each combination of sizes."""

    def __init__(self, program: Program, name: str, sessions: _Sessions):
        self.program, self.name, self.sessions = program, name, sessions
        self.stages = sessions.stages(name)
        self.cases: list[tuple[Sizes, Arrays, Arrays, Reference]] = []
        refused = None
        for sizes in program.sizes:
            inputs, params = self.arguments(sizes)
            try:
                self.cases.append((sizes, inputs, params, Reference(self.stages.backward, inputs, params, sizes)))
            except NncError as e:
                refused = e
            except IndexError as e:
                refused = error("E0607", str(e), kind=ArgumentError)
        if not self.cases and refused is not None:
            raise refused

    def arguments(self, sizes: Sizes) -> tuple[Arrays, Arrays]:
        s = self.stages.signature
        declared = self.sessions("f64").program.variables
        types = {path: declared[path].type for path in s.variables}
        inputs = arguments([(p.name, p.type) for p in s.inputs], sizes, self.program)
        drawn = arguments(types.items(), sizes, self.program)
        kept = {path: np.abs(v) + 1 if "/" in path or "running" in path else v / 2 for path, v in drawn.items()}
        return inputs, {path: np.asarray(v, NUMPY[types[path].dtype]) for path, v in kept.items()}


# --- the reference ---------------------------------------------------------------------------------------------------


class Reference:
    """Results of a graph, and how far those of another way to compute it may lie."""

    def __init__(self, graph: Graph, inputs: Arrays, params: Arrays, sizes: Sizes):
        self.wanted = _both(evaluate(graph, inputs, params, sizes))
        self._run = partial(evaluate, graph, inputs, params, sizes)
        self._room: dict[str, tuple[int, dict[str, np.ndarray]]] = {}

    def room(self, dtype: str, runs: int) -> dict[str, np.ndarray]:
        """The tolerance of each element, by so many runs; each is run when it is first asked for."""
        done, room = self._room.get(dtype, (0, {k: np.zeros(v.shape) for k, v in self.wanted.items()}))
        for k in range(done, runs):
            for name, value in _both(_noisy(self._run, NOISE[dtype], k)).items():
                with np.errstate(all="ignore"):
                    wanted = self.wanted[name]
                    off = np.abs(value.astype(np.float64) - wanted.astype(np.float64))
                    off = np.where((value == wanted) | ((value != value) & (wanted != wanted)), 0.0, off)
                room[name] = np.maximum(room[name], np.where(np.isnan(off), np.inf, off))
        self._room[dtype] = max(done, runs), room
        return room


def _both(results: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {**results[0], **{f"{path} :=": v for path, v in results[1].items()}}


def _noisy(run: Callable[[], object], noise: float, seed: int):
    """`run` with each inexact float result moved a little."""
    rng = np.random.default_rng(seed)
    exact = interpret.apply

    def moved(node, args, sizes, run=None):
        value = exact(node, args, sizes, run)
        if node.op == "contract" and _has_margin(node) and not all(np.isfinite(x).all() for x in args):
            return np.full_like(value, 0 if seed % 2 else np.nan)  # the third liberty of `passes.algebra`
        if node.op in INEXACT and isinstance(value, np.ndarray) and value.dtype.kind == "f":
            if node.op == "reduce_prod" and noise == NOISE["f32"]:  # some order of the factors may leave float32
                factors = np.abs(args[0])
                large = exact(node, [np.maximum(factors, 1)], sizes)
                small = exact(node, [np.where(factors > 0, np.minimum(factors, 1), 1)], sizes)
                value = np.where((large > NOT_FINITE) | (small < 1 / NOT_FINITE), np.nan, value)
            scale = abs(value)
            if node.op in SUMS:  # what cancels in it was rounded all the same: the length of a random walk
                squares = [x * x if x.dtype.kind == "f" else x for x in args]
                scale = np.fmax(scale, np.sqrt(exact(node, squares, sizes)))
            return np.asarray(value + noise * scale * rng.uniform(-1, 1, value.shape), value.dtype)
        return value

    with patch.object(interpret, "apply", moved):
        return run()


def _has_margin(node: Node) -> bool:
    """Whether a contraction may have terms that are not there: a window, perhaps of what is padded, or an adjoint."""
    return not is_gathered(node) or any(len(e[1]) > 1 for m in node.attrs["maps"] for e in m)


def compare(what: str, got: Mapping[str, np.ndarray], reference: Reference, dtype: str = "f64") -> None:
    """Raises `Wrong` where a result is farther off than its tolerance. What overflows is not compared."""
    for name, wanted in reference.wanted.items():
        value = got[name]
        if value.shape != wanted.shape:
            raise Wrong(f"{what}: shape", f"{name}: {value.shape} instead of {wanted.shape}")
        exact = (value == wanted) | ((value != value) & (wanted != wanted))
        if exact.all():
            continue
        for runs in RUNS:  # by chance a few runs may leave an element where it was
            bad = _beyond(value, wanted, reference.room(dtype, runs)[name], dtype) & ~exact
            if not bad.any():
                break
        else:
            at = tuple(int(k) for k in np.argwhere(bad)[0])
            most = np.max(np.abs(value[bad].astype(np.float64) - wanted[bad].astype(np.float64)))
            raise Wrong(
                f"{what}: values",
                f"{name}{list(at)} is {value[at]!r} instead of {wanted[at]!r}, "
                f"{int(bad.sum())} of {bad.size} elements; off by {most:.3g}",
            )


def _beyond(value: np.ndarray, wanted: np.ndarray, room: np.ndarray, dtype: str) -> np.ndarray:
    """Where a result is farther off than what the noise did allows."""
    a, b = value.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(all="ignore"):
        tame = np.isfinite(b) & (np.abs(b) < NOT_FINITE)
        scale = float(np.max(np.abs(b[tame]), initial=1.0))
        exact = wanted.dtype.kind != "f"
        room = np.where(room > 0, np.inf, 0.0) if exact else SPREAD * room + SLACK[dtype] * scale
        large = np.isfinite(b) & ~tame  # about to overflow
        return ~(np.abs(a - b) <= room) & np.isfinite(room) & ~large


# --- checks ----------------------------------------------------------------------------------------------------------


def _compiled(
    entry: _Entry, dtype: str, optimize: bool = True, memories: Sequence[Callable[[], Memory]] = (Memory,)
) -> None:
    code = entry.sessions.code(entry.name, dtype, optimize)
    what = f"compiled {dtype}{'' if optimize else ' unoptimised'}"
    for sizes, inputs, params, reference in entry.cases:
        if dtype == "f32":
            inputs, params, reference = _single(entry, sizes, inputs, params)
        for memory in memories:
            got = _called(code, inputs, params, sizes, memory=memory)
            compare(what, got, reference, dtype)


def _single(entry: _Entry, sizes: Sizes, inputs: Arrays, params: Arrays):
    """Arguments rounded to float32, and the reference of those in float64."""

    def rounded(arrays: Arrays) -> dict[str, np.ndarray]:
        return {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}

    inputs, params = rounded(inputs), rounded(params)
    return inputs, params, Reference(entry.stages.backward, inputs, params, sizes)


def _called(code: Native, inputs: Arrays, params: Arrays, sizes: Sizes, **options) -> dict[str, np.ndarray]:
    interpret.check_guards(
        code.signature.guards,
        {
            **sizes,
            **interpret.bind_sizes([(p.name, p.type, inputs[p.name].shape) for p in code.signature.inputs], sizes),
        },
    )
    outputs, variables = call(code, inputs, params, sizes, **options)
    return {**outputs, **{f"{path} :=": variables[path] for path in code.signature.updates}}


def _meaning(entry: _Entry) -> None:
    """The reference against plain Python. NumPy has no largest element of nothing, nor a mean."""
    for _, inputs, _, reference in entry.cases:
        try:
            results = plain.evaluate(entry.program.text, inputs)
        except ValueError as e:
            if "zero-size" in str(e):
                continue
            raise
        if results is not None:
            compare("meaning", {k: np.asarray(v) for k, v in zip(reference.wanted, results, strict=True)}, reference)


def _step(entry: _Entry) -> None:
    """What a step of training does against what its text says."""
    graph, declared = entry.stages.backward, entry.sessions("f64").program.variables
    roles = {path: v.role for path, v in declared.items() if v.role in ("weight", "bias")}
    for sizes, inputs, params, reference in entry.cases:

        def loss(name: str, moved: Arrays, sizes=sizes, inputs=inputs, params=params) -> float:
            outputs = [o for o in graph.outputs if o[0] == name]
            alone = passes.dce(assemble(graph, {n.name: n for n in graph}, outputs, ()))
            return float(evaluate(alone, inputs, {**params, **moved}, sizes)[0][name])

        new = {path: reference.wanted[f"{path} :="] for path in roles if f"{path} :=" in reference.wanted}
        old = {path: params[path] for path in roles if path in params}
        if (found := steps.wrong(entry.program.text, roles, old, new, loss)) is not None:
            raise Wrong("step", found)


def _threads(entry: _Entry) -> None:
    """The same bits on one thread and on two, all loops parallel that may be, examples one by one where they may be."""
    session = entry.sessions("f32")
    alone = patch.multiple(microbatches, NEAR=1, READ=0)
    with patch.object(sharing, "FORK", -1), alone, limited(COMPILE_SECONDS):
        code = code_of(session, session.stages(entry.name))
    pool = session.pool(THREADS)
    for sizes, inputs, params, _ in entry.cases:
        inputs, params, reference = _single(entry, sizes, inputs, params)
        one, two = (_called(code, inputs, params, sizes, pool=p) for p in (None, pool))
        compare("compiled for threads", one, reference, "f32")
        for name, value in one.items():
            if value.tobytes() != two[name].tobytes():
                raise Wrong("threads", f"{name} is {value.ravel()[:6]} on one, {two[name].ravel()[:6]} on two threads")


def _passes(entry: _Entry) -> None:
    """Each pass alone, those that rewrite in some other order, and the graphs of the pipeline, by the interpreter."""
    rng = random.Random(entry.program.seed)
    shuffled = rng.sample(passes.REWRITE, len(passes.REWRITE))
    backward = entry.stages.backward
    ways = [(f"pass {p.__name__}", partial(passes.run, (p,), backward)) for p in dict.fromkeys(passes.OPTIMIZE)]
    mixed = (*shuffled, *passes.LAYOUT, *passes.KERNELS)
    ways.append(("passes in another order", partial(passes.run, mixed, backward)))
    ways.append(("optimized", lambda: entry.stages.optimized))
    ways.append(("fused", lambda: entry.stages.fused))
    prepare = entry.stages.prepare
    for what, made in ways:
        with limited(COMPILE_SECONDS):
            graph = made()
        if graph is backward:
            continue
        for sizes, inputs, params, reference in entry.cases:
            if what == "fused" and prepare is not None:
                params = {**params, **evaluate(prepare, {}, params, sizes)[1]}
            compare(what, _both(evaluate(graph, inputs, params, sizes)), reference)


def with_gradients(program: Program) -> str:
    """The text with an entry `gradient_of_f`: a sum over the float results of `f`, and its gradients."""
    session = Session(Source("f.nn", program.text), Settings(cache=False, dtype="f64"))
    graph = session.program.graph("f")
    inputs = [n for n in graph if n.op == "input"]
    results = [(f"r{k}", graph[v].type) for k, (_, v) in enumerate(graph.outputs)]
    real = [name for name, t in results if t.dtype in FLOATS]
    smooth = [n.attrs["name"] for n in inputs if n.dtype in FLOATS]
    if not real or not smooth:
        return program.text + "fn gradient_of_f() = 0.0\n"
    head = program.text[program.text.index("fn f(") + 5 : program.text.index(") {")]
    names = ", ".join(n.attrs["name"] for n in inputs)
    taken = ", ".join(name for name, _ in results)
    taken = f"({taken})" if len(results) > 1 else taken
    gradients = ", ".join(f"d_{x}" for x in smooth)
    left = f"({gradients})" if len(smooth) > 1 else gradients
    wrt = f"[{', '.join(smooth)}]" if len(smooth) > 1 else smooth[0]
    total = " + ".join(f"sum(sin({r} * 0.7))" for r in real)
    return f"""{program.text}fn gradient_of_f({head}) {{
    {taken} = f({names})
    total = {total}
    {left} = grad(total, {wrt})
    return (total, {gradients})
}}
"""


def _differences(entry: _Entry) -> None:
    """The gradients against central differences along a random direction, where the function is smooth there."""
    graph = entry.stages.backward
    if len(graph.outputs) < 2:
        return
    alone = passes.dce(assemble(graph, {n.name: n for n in graph}, graph.outputs[:1], ()))
    for sizes, inputs, params, reference in entry.cases:
        wanted = reference.wanted
        names = [k for k in inputs if inputs[k].dtype == np.float64]
        rng = np.random.default_rng(7)
        along = {k: rng.normal(size=inputs[k].shape) for k in names}

        def total(h: float, inputs=inputs, along=along, params=params, sizes=sizes) -> float:
            moved = {k: v + h * along[k] if k in along else v for k, v in inputs.items()}
            return float(_both(evaluate(alone, moved, params, sizes))[graph.outputs[0][0]])

        gradients = list(wanted.values())[1:]
        slope = sum(float(np.sum(g * along[k])) for k, g in zip(names, gradients, strict=True))
        h = 1e-5
        middle = total(0.0)
        ahead, behind = (total(h) - middle) / h, (middle - total(-h)) / h
        closer = (total(h / 4) - total(-h / 4)) / (h / 2)
        central = (ahead + behind) / 2
        parts = [float(np.sum(np.abs(g * along[k]))) for k, g in zip(names, gradients, strict=True)]
        scale = 1 + abs(central) + sum(parts)
        rough = max(abs(ahead - behind), 10 * abs(central - closer)) > 1e-2 * (1 + abs(central))
        if rough or not np.isfinite([slope, central]).all():
            continue  # a jump or a kink, or too steep to tell
        room = 1e-5 * scale + 20 * abs(central - closer)
        if abs(slope - central) > room:
            raise Wrong("gradient", f"the slope is {slope:.12g} by the gradients, {central:.12g} by differences")
