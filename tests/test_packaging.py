"""What is installed is what is in the tree."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = {".py", ".ll", ".mjs", ".html", ".nn", ".lark", ".md", ".typed", ".gz", ".csv", ".rules"}


def _tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return {f for f in listed.stdout.split("\n") if f}


def test_the_wheel_holds_the_tree(tmp_path):
    files = _tracked()
    source = tmp_path / "source"
    for f in files:
        target = source / f
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / f).read_bytes())
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("nnc/")}
    rooms = ("dsl", "compiler", "runtime", "models", "__init__.py", "onnx_backend.py", "py.typed")
    shipped = [f for f in files if f.split("/")[0] in rooms and Path(f).suffix in SHIPPED]
    wanted = {f"nnc/{f}" for f in shipped if Path(f).name != "README.md"}
    assert wanted - held == set()


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
