"""CONTRIBUTING is followed: the differences of each page in a copy of the tree, then its commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .book.snippets import shell, texts

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PAGES = {page.split("\n", 1)[0]: page for page in re.split(r"^## ", TEXT, flags=re.M)[1:]}


def copied(to: Path) -> Path:
    """The tracked files, as a package `nnc`."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\n")):
        target = to / "nnc" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    return to / "nnc"


def passes(command: str, tree: Path) -> bool:
    """Whether a command of a page passes in a tree, as a module of this Python."""
    line = f"{shlex.quote(sys.executable)} -m {command} -p no:cacheprovider"
    run = shell(line, tree, PYTHONPATH=str(tree.parent), PYTHONDONTWRITEBYTECODE="1")
    print(run.stdout)
    return run.returncode == 0


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_says_and_no_step_is_idle(name: str, tmp_path: Path) -> None:
    """With all differences of a page its commands pass; without any one of them they fail."""
    differences, (commands,) = texts(PAGES[name], "diff"), texts(PAGES[name], "sh")
    for left_out in (None, *differences):
        tree = copied(tmp_path / str(len(list(tmp_path.iterdir()))))
        for difference in differences:
            if difference is not left_out:
                apply(difference, tree)
        assert all(passes(line, tree) for line in commands.splitlines()) == (left_out is None), left_out


def apply(difference: str, tree: Path) -> None:
    run = subprocess.run(["git", "apply", "--recount", "-"], input=difference, cwd=tree, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
