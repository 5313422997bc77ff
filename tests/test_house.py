"""The house rules: imports go one way, no room imports the package root, no file outgrows one sitting."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("dsl", "compiler", "runtime")
FILES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
MAX_LINES = 700


def _imports(path: Path) -> list[tuple[str, ...]]:
    """The modules of ours that a file imports, as parts below the root."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            assert base or node.module, f"{path} imports the package root"
            module = (*base, *(node.module.split(".") if node.module else ()))
            found += [(*module, a.name) for a in node.names] if not node.module else [module]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not any(n == "nnc" or n.startswith("nnc.") for n in names), f"{path} imports nnc by name"
    return found


def test_imports_go_from_runtime_to_compiler_to_dsl():
    allowed = {"dsl": {"dsl"}, "compiler": {"compiler", "dsl"}, "runtime": {"runtime", "compiler", "dsl"}}
    for path in FILES:
        room = path.relative_to(ROOT).parts[0]
        for module in _imports(path):
            assert module[0] in allowed[room], f"{path.relative_to(ROOT)} imports {'.'.join(module)}"


def test_operators_do_not_know_the_builder():
    graph = nx.DiGraph()
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        for module in _imports(path):
            graph.add_edge(parts[:2], module[:2])
    for below in (("compiler", "graph"), ("compiler", "types"), ("compiler", "llvm")):
        if below in graph:
            assert ("compiler", "elaborate") not in nx.descendants(graph, below), below


def test_only_native_binds_llvm():
    binds = re.compile(r"^\s*(import|from) llvmlite", re.MULTILINE)
    users = [p.relative_to(ROOT).as_posix() for p in FILES if binds.search(p.read_text("utf-8"))]
    assert users == ["compiler/native/library.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_is_read_in_one_sitting(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
    tree = ast.parse(text)
    if tree.body:
        assert ast.get_docstring(tree), "a module says what comes in, what goes out, the one idea"


@pytest.mark.parametrize("command", ["ruff check .", "mypy compiler dsl runtime"])
def test_the_linters_have_nothing_to_say(command):
    words = command.split()
    pytest.importorskip(words[0])
    out = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr
