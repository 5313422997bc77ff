"""The house rules: imports go one way, no room imports the package root, no file outgrows one sitting."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

from nnc.runtime.cli.house import ROOMS, room_of

ROOT = Path(__file__).parents[1]
PUBLIC = ROOT / "runtime" / "public"  # is `nnc` itself to who imports from it
FILES = sorted(p for room in ("dsl", "compiler", "runtime") for p in (ROOT / room).rglob("*.py") if p.parent != PUBLIC)
MAX_LINES = 450


def _imports(path: Path) -> list[tuple[str, ...]]:
    """The modules of ours that a file imports, as parts below the root."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            assert base or node.module, f"{path} imports the package root"
            module = (*base, *(node.module.split(".") if node.module else ()))
            found += [(*module, a.name) for a in node.names]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not any(n == "nnc" or n.startswith("nnc.") for n in names), f"{path} imports nnc by name"
    return found


def _module(parts: tuple[str, ...]) -> Path | None:
    """The file of a module, given as parts below the root; of a name in it, too."""
    for end in (len(parts), len(parts) - 1):
        path = ROOT.joinpath(*parts[:end])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def imports() -> nx.DiGraph:
    """Who imports whom, of our files: at the top, in functions and for types alike."""
    graph = nx.DiGraph()
    for path in FILES:
        graph.add_edges_from((path, target) for m in _imports(path) if (target := _module(m)) not in (None, path))
    return graph


def test_no_file_imports_in_a_circle():
    assert [sorted(map(str, c)) for c in nx.strongly_connected_components(imports()) if len(c) > 1] == []


def test_no_arrow_runs_up():
    up = [
        f"{a.relative_to(ROOT)} imports {b.relative_to(ROOT)}"
        for a, b in imports().edges
        if ROOMS.index(room_of(a)) < ROOMS.index(room_of(b))
    ]
    assert up == []


def test_loose_files_of_the_compiler_are_the_pipeline():
    loose = {p.stem for p in (ROOT / "compiler").glob("*.py")}
    assert loose == {"__init__", "apart", "origin", "pipeline", "session", "settings", "manifest"}
    assert len((ROOT / "compiler" / "pipeline.py").read_text("utf-8").splitlines()) <= 120


# Imports inside functions: each saves time where what is imported is not needed; none has any other reason.
LATE = {
    "compiler/native/host.py": "LLVM: for who compiles, or asks for the first time what the processor is",
    "compiler/native/loading.py": "LLVM: where the system lets no file in memory run",
    "compiler/graph/nodes.py": "networkx: 60 ms, for who asks for its algorithms",
    "compiler/session.py": "what was compiled before runs without the compiler being loaded",
    "dsl/parser.py": "Lark and its tables: 60 ms, for who parses",
    "dsl/tables.py": "fcntl: not every system has it",
    "runtime/api.py": "`nnc.compile` of what is in the cache loads no parser",
    "runtime/data/formats.py": "readers: for who reads data; a train block is compiled by the name of its format",
    "runtime/model.py": "training, files and evaluation: for who trains, saves or evaluates",
    "runtime/network.py": "data sets: for who reads one",
    "runtime/train/fit.py": "shards of a batch, processes: for who has them",
    "runtime/cli": "a command loads what it runs; `nnc --help` and wrong usage answer at once",
}


def test_imports_inside_functions_are_for_start_up_time():
    late = set()
    for path in FILES:
        tree = ast.parse(path.read_text("utf-8"))
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)):
            if any(isinstance(n, ast.Import | ast.ImportFrom) for n in ast.walk(function)):
                name = path.relative_to(ROOT).as_posix()
                late.add("runtime/cli" if name.startswith("runtime/cli/") else name)
    assert late == set(LATE)


def test_no_file_of_the_root_hides_a_library():
    """The root is where Python looks first for who works in it: `sklearn.py` there would be scikit-learn."""
    assert {p.name for p in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", sorted(PUBLIC.glob("*.py")), ids=lambda p: p.stem)
def test_what_is_public_only_names_what_stands_elsewhere(path):
    """A module that is reached by two names would be loaded twice."""
    kinds = {type(node) for node in ast.parse(path.read_text("utf-8")).body}
    assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign}


def test_only_native_binds_llvm():
    binds = re.compile(r"^\s*(import|from) llvmlite", re.MULTILINE)
    users = [p.relative_to(ROOT).as_posix() for p in FILES if binds.search(p.read_text("utf-8"))]
    assert users == ["compiler/native/objects.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_is_read_in_one_sitting(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
    tree = ast.parse(text)
    if tree.body:
        assert ast.get_docstring(tree), "a module says what comes in, what goes out, the one idea"


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check .", "mypy compiler dsl runtime"])
def test_the_linters_have_nothing_to_say(command):
    words = command.split()
    pytest.importorskip(words[0])
    out = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr
