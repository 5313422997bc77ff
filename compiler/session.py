"""A session: one source text under one set of settings, compiled entry by entry; what was compiled stays in the cache.

An entry is compiled when it is first asked for, so a program that was compiled before runs without being parsed. A key
of the cache holds all that code depends on: the texts, the settings, the target, the compiler's own files.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dsl.errors import DataError
from ..dsl.source import Source
from .manifest import (
    STAGE,
    DataSizes,
    Manifest,
    Signature,
    manifest_from_json,
    manifest_to_json,
    signature_from_json,
    signature_to_json,
)
from .native.cache import Cache
from .native.host import Host, host
from .native.loading import Library, Pool, Support
from .native.lock import compiling
from .native.room import is_refused
from .native.share import share
from .settings import Settings

if TYPE_CHECKING:
    from .elaborate import Program
    from .elaborate.checks import TestPlan
    from .graph.nodes import Graph
    from .origin import Origin
    from .pipeline import Observer, Stages

_AMPLE_BYTES = 384 << 20  # with less to be had LLVM gets no thread of its own


class Native:
    """One entry, compiled and loaded. `run(sizes, slots, arena, pool)` calls it once, `epoch(job)` as a loop's step;
    `prepare`, called in the same way, is the entry that prepares what it reads (None where nothing is)."""

    def __init__(self, signature: Signature, data: bytes, epoch: Callable[[int, Any], int]):
        self.signature = signature
        self.code_size = len(data)
        self._library = Library(data)
        self._epoch = epoch
        self.run = self._library.function(signature.name)
        self.prepare = self._library.function(f"{signature.name}.prepare") if signature.prepared else None

    def epoch(self, job: Any) -> int:
        return self._epoch(self._library.address(self.signature.name), job)


class Session:
    """One source under one set of settings; entries are compiled when they are first asked for. Making one raises
    `SourceError` where the program is wrong, unless it was compiled before."""

    def __init__(self, source: Source, settings: Settings | None = None, data_sizes: DataSizes | None = None):
        self.source, self.settings = source, settings or Settings()
        self._program: Program | None = None
        self._store = Cache() if self.settings.cache else None
        self._host = host(self.settings.target_cpu, self._store, _key)
        self.target = self._host.target
        self._data_sizes = data_sizes
        self._entries: dict[str, Native] = {}
        self.manifest = self._manifest()

    @property
    def program(self) -> Program:
        """The elaborated program; parses and builds when first needed."""
        from .elaborate import Program

        with compiling():
            if self._program is None:
                self._program = Program(self.source, self.settings, self._data_sizes)
            return self._program

    @compiling()
    def plan_tests(self) -> list[TestPlan]:
        """The file's tests. They may use models that the session is not about: the manifest then has the variables that
        some test reads, and no others, so that the parameters of a large model can be counted without being stored."""
        from .passes.dce import dce

        plans = [self.program.plan_test(k) for k in range(len(self.program.found.tests))]
        read = {n.attrs["path"] for plan in plans for n in dce(plan.graph) if n.op == "param"}
        read |= {stack for path, stack in self.program.stacks.items() if path in read}
        self.program.unread = self.program.variables.keys() - read
        self.manifest = self.program.manifest()
        return plans

    @compiling()
    def _manifest(self) -> Manifest:
        key = _key("manifest", self.source.name, self.source.text, self.settings.key)
        stored = self._load(key)
        if stored is not None:
            manifest = manifest_from_json(json.loads(stored))
            if self._current(manifest):
                return manifest
        with without_collection():
            manifest = self.program.manifest()
        self._save(key, json.dumps(manifest_to_json(manifest)).encode())
        return manifest

    def _current(self, manifest: Manifest) -> bool:
        """Whether what a stored manifest was made from still is so: imported files, and those of constants. Sizes that
        were taken from the data are never trusted."""
        from ..dsl.files import digest_of
        from ..dsl.parser import read_source

        for name, text in manifest.sources.items():
            if name == self.source.name:
                continue
            try:
                if read_source(name).text != text:
                    return False
            except DataError:
                return False
        if any(digest_of(name) != digest for name, digest in manifest.files.items()):
            return False
        return manifest.sizes.keys() <= self.settings.sizes.keys()

    def entry(self, name: str) -> Native:
        """The compiled entry. Raises `KeyError` where the program has none of that name."""
        if name not in self._entries:
            self.prepare((name,))
        return self._entries[name]

    @compiling()
    def prepare(self, names: Iterable[str], processes: int = 1) -> None:
        """Compile several entries at once, in up to so many processes. Raises `KeyError` as `entry` does."""
        keys: dict[str, str] = {}
        for name in names:
            if name in self._entries:
                continue
            if name not in self.manifest.entries and not self._known(name):
                raise KeyError(name)
            key = self._entry_key(name)
            stored = self._load(key)
            if stored is None:
                keys[name] = key
            else:
                self._entries[name] = self._loaded(stored)
        wanted = sorted(keys, key=lambda name: name != "train")  # the largest first, or it would be the last to end
        for name, data in (share(self._compiled, wanted, processes) if wanted else {}).items():
            self._save(keys[name], data)
            self._entries[name] = self._loaded(data)

    def _compiled(self, names: Iterable[str]) -> dict[str, bytes]:
        """Entries as they are stored: while LLVM works on one, the next is built and lowered."""
        from .native.objects import compile_object

        jobs: dict[str, tuple[bytes, Future[bytes]]] = {}
        with ThreadPoolExecutor(1) as worker, without_collection():
            for name in names:
                made = self.stages(name)
                header = json.dumps(signature_to_json(made.signature)).encode()
                work = partial(compile_object, self.llvm(made), self.target, quick=name == "init")
                jobs[name] = header, _submit(worker, work)
        return {name: len(h).to_bytes(8, "little") + h + code.result() for name, (h, code) in jobs.items()}

    def _loaded(self, stored: bytes) -> Native:
        end = 8 + int.from_bytes(stored[:8], "little")
        return Native(signature_from_json(json.loads(stored[8:end])), stored[end:], self.support.epoch)

    def _entry_key(self, name: str) -> str:
        m, target = self.manifest, self.target.key
        return _key(
            "entry",
            name,
            m.sources,
            m.files,
            self.settings.key,
            m.sizes,
            [v.path for v in m.variables],  # those that are stored; what they are the sources say
            target,
            self._host.version,
        )

    def _known(self, name: str) -> bool:
        of_shards = self.manifest.train is not None and name.startswith(STAGE)
        return of_shards or name.startswith("test:") or name in self.program.found.functions

    @compiling()
    def stages(self, name: str, observe: Observer | None = None, graph: Graph | None = None) -> Stages:
        """The entry on its way to machine code; `observe` sees the graph after each pass. `graph` takes the place of
        what the program gives for it."""
        from .pipeline import stages

        if name.startswith(STAGE):
            graph = self._of_shards[int(name.removeprefix(STAGE))]
        return stages(self.program, name, self.target, observe, graph=graph)

    @cached_property
    def _of_shards(self) -> tuple[Graph, ...]:
        """A step of training in stages."""
        from . import passes
        from .passes.cut import cut

        spec = self.manifest.train
        assert spec is not None and spec.batch_size is not None
        return cut(passes.run(passes.ALWAYS, self.program.graph("shards")), spec.batch_size, STAGE)

    @compiling()
    def llvm(self, made: Stages) -> str:
        from .llvm import emit

        return emit(made.lowered.module, self.target)

    @compiling()
    def origin(
        self, entry: str, root: str, inputs: Mapping[str, Any], variables: Mapping[str, Any], patient: bool
    ) -> Origin | None:
        """Where in the program an output (or a variable that is written) that is not finite became so: the entry is run
        by the interpreter. None where it finds nothing; raises `ResourceError` (E0605) where that would take long and
        the caller is not `patient`."""
        from .origin import origin

        return origin(self.program.unrolled.graph(entry), root, inputs, variables, patient)

    @property
    def made_by(self) -> tuple[str, str]:
        """The compiler, as a digest, and the processor that it compiles for."""
        return _key(self._host.version), f"{self.target.name} {self.target.cpu} {8 * self.target.vector_bytes} bits"

    @property
    def support(self) -> Support:
        """The thread pool and the epoch loop: one for all sessions on a target."""
        return _support(self._host, self._store)

    def pool(self, threads: int) -> Pool | None:
        """A thread pool for `threads` threads, or None where one is enough."""
        return self.support.pool(threads)

    def _load(self, key: str) -> bytes | None:
        return self._store.get(key) if self._store is not None else None

    def _save(self, key: str, data: bytes) -> None:
        if self._store is not None:
            self._store.put(key, data)


def _submit(worker: ThreadPoolExecutor, work: Callable[[], bytes]) -> Future[bytes]:
    """Work for a thread; done here where memory is scarce, for two at a time need more than each for itself, or where
    no thread can be had."""
    if not is_refused(_AMPLE_BYTES):
        try:
            return worker.submit(work)
        except RuntimeError:
            pass
    done: Future[bytes] = Future()
    done.set_result(work())
    return done


_SUPPORT: dict[str, Support] = {}


@compiling()
def _support(made_for: Host, store: Cache | None) -> Support:
    """Loaded once per process: pools and jobs of any session are then interchangeable."""
    target = made_for.target
    if target.key not in _SUPPORT:
        key = _key("support", target.key, made_for.version)
        data = store.get(key) if store is not None else None
        if data is None:
            from .llvm.support import support
            from .native.objects import compile_object

            data = compile_object(support(target), target)
            if store is not None:
                store.put(key, data)
        _SUPPORT[target.key] = Support(data)
    return _SUPPORT[target.key]


def emit(session: Session, stage: str, entry: str) -> str | bytes:
    """A stage of an entry: `graph`, `backward`, `optimized`, `loops`, `llvm`, `asm`, `dot` as text, `obj` as bytes."""
    from .graph.dot import print_dot
    from .graph.text import print_graph
    from .loops.text import print_loops
    from .native import objects

    made = session.stages(entry)
    match stage:
        case "graph" | "backward" | "optimized":
            return print_graph(getattr(made, stage))
        case "fused":
            of_many = (made.many.before, made.many.graph) if made.many is not None else ()
            return "\n".join(print_graph(g) for g in (made.prepare, made.fused, *of_many) if g is not None)
        case "dot":
            return print_dot(made.backward)
        case "loops":
            return print_loops(made.lowered.module)
        case "llvm":
            return session.llvm(made)
        case "asm":
            return objects.assembly(session.llvm(made), session.target)
        case "obj":
            return objects.compile_object(session.llvm(made), session.target)
    raise ValueError(f"no stage is named {stage!r}")


@contextmanager
def without_collection() -> Iterator[None]:
    """Graphs are many small objects that live as long as the compilation: looking for garbage among them costs 15 %. At
    the end all are as if they had been looked at, or that would be done now."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if gc.get_freeze_count() == 0:
                gc.freeze()
                gc.unfreeze()  # to the oldest
            gc.enable()


@cache
def _fingerprint() -> str:
    """What the compiler itself is: its files, by name, size and time."""
    root = Path(__file__).parents[1]
    files = [
        p
        for room in ("compiler", "dsl")
        for p in sorted((root / room).rglob("*"))
        if p.suffix in (".py", ".ll", ".nn", ".lark")
    ]
    return sha256(
        "\n".join(f"{p.relative_to(root)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files).encode()
    ).hexdigest()


def _key(*parts: Any) -> str:
    return sha256("\0".join([_fingerprint(), *map(repr, parts)]).encode()).hexdigest()
