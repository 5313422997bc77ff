"""What is installed is what is in the tree."""

import platform
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from nnc.compiler.native import objects
from nnc.runtime.cli import main

ROOT = Path(__file__).parents[1]
SHIPPED = {".py", ".ll", ".mjs", ".html", ".nn", ".lark", ".md", ".typed", ".gz", ".csv", ".rules"}


def _tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return {f for f in listed.stdout.split("\n") if f}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution of what is tracked, and the wheel that is made of it."""
    folder = tmp_path_factory.mktemp("built")
    for f in _tracked():
        target = folder / "source" / f
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / f).read_bytes())
    subprocess.run([sys.executable, "-m", "build", "-o", folder, folder / "source"], check=True, capture_output=True)
    return folder


def test_the_wheel_holds_the_tree(built: Path) -> None:
    """Also what commands refer to: the reference of the language, the pages of error codes, READMEs of rooms."""
    (wheel,) = built.glob("*.whl")
    held = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("nnc/")}
    rooms = ("dsl", "compiler", "runtime", "models", "__init__.py", "onnx_backend.py", "py.typed")
    wanted = {f"nnc/{f}" for f in _tracked() if f.split("/")[0] in rooms and Path(f).suffix in SHIPPED}
    assert wanted - held == set()


def test_the_distributions_can_be_uploaded(built: Path) -> None:
    """The description of the project is one that the index can show."""
    files = sorted(map(str, [*built.glob("*.whl"), *built.glob("*.tar.gz")]))
    assert len(files) == 2
    pytest.importorskip("twine", reason="twine is not installed")
    checked = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(checked, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


def test_importing_is_cheap():
    """`import nnc` loads nothing of ours, nor NumPy."""
    heavy = ("numpy", "llvmlite", "lark", "networkx")
    code = f"import sys, nnc; print([m for m in sys.modules if m in {heavy} or m.startswith('nnc.')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_command_that_is_installed_is_the_one_that_is_tested() -> None:
    """`entry_point` also sees to what comes after `main`: a late Ctrl-C prints no traceback."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"nnc": "nnc.runtime.cli:entry_point"}


def test_the_map_of_the_house_has_every_file() -> None:
    out = subprocess.run([sys.executable, "-m", "nnc", "doc", "--compiler"], capture_output=True, text=True, check=True)
    found, room = set(), ""
    for line in out.stdout.splitlines():
        if not line.startswith(" "):
            room = line
        else:
            found.add(f"{room}/{line.split()[0]}".removesuffix("/."))
    files = [p.relative_to(ROOT) for r in ("dsl", "compiler", "runtime") for p in (ROOT / r).rglob("*.py")]
    said = {p.with_suffix("").as_posix().removesuffix("/__init__") for p in files}
    assert found == said


def test_a_report_of_a_fault_says_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert main(["--version", "--verbose"]) == 0
    first, *facts = capsys.readouterr().out.splitlines()
    assert first == line
    said = dict(fact.split(":", 1) for fact in facts)
    assert platform.python_version() in said["Python"] and platform.machine() in said["system"]
    assert {f"numpy {np.__version__}", f"networkx {nx.__version__}"} <= {s.strip() for s in said["needs"].split(",")}
    assert {"processor", "threads", "memory", "cache", "LLVM", "extras"} <= set(said)
    assert main(["--verbose", "explain", "E0301"]) == 2


@pytest.mark.parametrize("triple", ["arm64-apple-darwin23.1.0", "x86_64-pc-windows-msvc", "riscv64-unknown-linux-gnu"])
def test_elsewhere_there_is_a_clear_sentence(triple: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(objects.llvm, "get_process_triple", lambda: triple)
    assert main(["train", str(ROOT / "models" / "xor.nn"), "--no-cache", "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error[E0504]: nnc runs on Linux, on x86-64 and aarch64") and triple in said
    assert main(["--version", "--verbose"]) == 0 and triple in capsys.readouterr().out
