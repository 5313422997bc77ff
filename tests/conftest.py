"""What all tests share: how the tree is collected, and the options of the golden runner."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from nnc.compiler.graph.interpret import bind_sizes, whole
from nnc.compiler.graph.nodes import Graph
from nnc.compiler.graph.ops.elementwise import NUMPY
from nnc.compiler.llvm import emit
from nnc.compiler.lowering.lower import Variant, lower
from nnc.compiler.native import loading
from nnc.compiler.native import objects as native

ROOT = Path(__file__).resolve().parent.parent
settings.register_profile("nnc", deadline=None)  # a test never fails for its time
settings.load_profile("nnc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite what stands below `## expect` in the golden cases"
    )


FAST = {"test_autodiff", "test_explain", "test_golden", "test_house", "test_ops", "test_ordering", "test_std"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in FAST:
            item.add_marker("fast")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fast: under a minute together, for every save of a file")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what is in the background so
        signal.signal(signal.SIGINT, signal.default_int_handler)  # and tests send it


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The root of the repository is the package `nnc`; pytest must not import it a second time as one of its own."""
    return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


@pytest.fixture(scope="session")
def run_compiled() -> Callable[..., dict[str, np.ndarray]]:
    """A graph without parameters as machine code, without the runtime: `run_compiled(graph, inputs)`."""
    return _run_compiled


def _run_compiled(graph: Graph, inputs: Mapping[str, np.ndarray], cpu: str = "native") -> dict[str, np.ndarray]:
    """The outputs of a graph without parameters. Raises `IndexError` with the message of a check that failed."""
    target = native.target(cpu)
    types = {n.attrs["name"]: n.attrs["type"] for n in graph if n.op == "input"}
    lowered = lower(Variant(graph), types, {}, target)
    library = loading.Library(native.compile_object(emit(lowered.module, target), target))
    arrays = {k: np.array(inputs[k], NUMPY[t.dtype], order="C") for k, t in types.items()}
    sizes = bind_sizes([(k, t, arrays[k].shape) for k, t in types.items()], {})
    outputs = {
        k: np.full([whole(n, sizes) for n in graph[v].shape], 77, NUMPY[graph[v].dtype]) for k, v in graph.outputs
    }
    numbers = (ctypes.c_int64 * (len(lowered.entry.sizes) or 1))(*(sizes[s] for s in lowered.entry.sizes))
    buffers = [*arrays.values(), *outputs.values()]
    slots = (ctypes.c_void_p * (len(buffers) or 1))(*(a.ctypes.data for a in buffers))
    arena = np.full(whole(lowered.arena, sizes) + 64, 0xFF, np.uint8)  # NaN everywhere: nothing may be read unwritten
    base = -(-arena.ctypes.data // 64) * 64
    status = library.function(graph.name)(ctypes.addressof(numbers), ctypes.addressof(slots), base, None)
    if status:
        raise IndexError(lowered.checks[status - 1])
    return outputs
