"""The book: every block of every page is run, the exercises are passed by their solutions, and the site is built."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnc
from nnc.dsl.format import format
from nnc.dsl.parser import parse
from nnc.dsl.source import Source
from nnc.runtime.cli import main

from .book import snippets

ROOT = Path(nnc.__file__).parent
CHAPTERS = sorted((ROOT / "models" / "book").rglob("*.md"))
PAGES = [*CHAPTERS, ROOT / "compiler" / "tour.md", *sorted((ROOT / "runtime" / "recipes").glob("*.md"))]
EXERCISES = sorted((ROOT / "models" / "book" / "exercises").glob("*.nn"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).with_suffix("").as_posix())
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    missing = snippets.run(page.read_text("utf-8"), tmp_path / "page")
    if missing:
        pytest.skip(f"run but for what needs {', '.join(missing)}")


@pytest.mark.parametrize("file", EXERCISES, ids=lambda p: p.stem)
def test_a_solution_passes_its_test(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = file.read_text("utf-8")
    assert main(["test", str(file)]) == 0
    assert int(re.search(r"(\d+) passed", capsys.readouterr().out)[1]) > 0
    assert format(parse(Source(file.name, text)), Source(file.name, text)) == text


def test_each_exercise_stands_in_a_chapter() -> None:
    shown = {name for page in CHAPTERS for name in re.findall(r'exercises/(\w+)\.nn"$', page.read_text("utf-8"), re.M)}
    assert shown == {p.stem for p in EXERCISES}


def test_the_chapters_are_those_of_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert [p.relative_to(ROOT).as_posix() for p in PAGES if p.relative_to(ROOT).as_posix() not in site] == []


def test_the_site_is_built(tmp_path: Path) -> None:
    """`mkdocs build --strict`: every link leads somewhere. Pictures are drawn where pages are run."""
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    environment = {**os.environ, "NNC_BOOK_DRAW": "false"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "threshold_neuron.svg" in (tmp_path / "site/models/book/01_neuron/index.html").read_text("utf-8")


WRONG = {
    "a command": "```sh\nnnc check none.nn\n```\n",
    "a program": "```nn\nfn f(x: f32[2]) -> f32[3] = x\n```\n",
    "Python": "```python\n1 / 0\n```\n",
    "what is printed": "```python\nprint(1.5)\n```\n\n```output\n2.5\n```\n",
    "a picture": "![none](none.svg)\n",
    "what is included": '```nn\n--8<-- "models/xor.nn:none"\n```\n',
}


@pytest.mark.parametrize("page", WRONG.values(), ids=WRONG)
def test_what_is_wrong_on_a_page_is_found(page: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, ValueError)):
        snippets.run(page, tmp_path / "page")


def test_what_needs_a_library_is_left_out_with_its_section(tmp_path: Path) -> None:
    left_out = "# A\n```python\nimport no_such_library\n```\n```sh\nfalse\n```\n"
    page = left_out + "## B\n```sh\necho b\n```\n```output\n...\n```\n"
    assert snippets.run(page, tmp_path / "page") == ["no_such_library"]
