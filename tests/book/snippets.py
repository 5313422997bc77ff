"""The fenced blocks of a page of Markdown, and what runs them: for the book, the READMEs and CONTRIBUTING.

A page is run from top to bottom, in a folder of its own that has a copy of `models/`:

* `nn` is checked by `nnc check`, and written to the file that `title="NAME"` says;
* `sh` is run by bash, to the first command that fails;
* `python` is run in one namespace for the page;
* `output` behind one of these is what it must have printed, where `...` stands for anything.

`--8<-- "FILE"` in a block is the text of a file of the repository, `--8<-- "FILE:NAME"` what stands in it between
comments `--8<-- [start:NAME]` and `--8<-- [end:NAME]`.
"""

from __future__ import annotations

import ast
import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(
    r"^(?P<margin> *)```(?P<language>\w*)(?P<options>[^\n`]*)\n(?P<text>.*?)^(?P=margin)```$", re.M | re.S
)
INCLUDE = re.compile(r'^( *)--8<-- "([^":]+)(?::(\w+))?"$', re.M)
PICTURE = re.compile(r"!\[[^\]]*\]\(([\w/.-]+\.(?:svg|png))\)")
MARK = re.compile(r"^.*--8<-- \[(start|end):(\w+)\]\n", re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is, its text, its line, and the number of headings above it."""

    language: str
    title: str
    text: str
    line: int
    section: int


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order, without their margin."""
    for found in FENCE.finditer(page):
        title = re.search(r'title="([^"]+)"', found["options"])
        above = page[: found.start()]
        yield Block(
            language=found["language"],
            title=title[1] if title else "",
            text=textwrap.dedent(found["text"]),
            line=above.count("\n") + 1,
            section=len(re.findall(r"^#+ ", FENCE.sub("", above), re.M)),
        )


def texts(page: str, language: str = "") -> list[str]:
    """The texts of the blocks of a page in one language."""
    return [b.text for b in blocks(page) if b.language == language]


def pictures(page: str) -> list[str]:
    """The pictures that a page shows, by their names in its folder."""
    return sorted(set(PICTURE.findall(page)))


def included(page: str) -> str:
    """A page with the texts of the files that it includes. Raises ValueError for a part that a file does not have."""

    def text(found: re.Match[str]) -> str:
        margin, file, name = found.groups()
        whole = (ROOT / file).read_text("utf-8")
        if name:
            part = re.search(rf"\[start:{name}\]\n(.*?)^.*\[end:{name}\]", whole, re.M | re.S)
            if part is None:
                raise ValueError(f"{file} has no part {name}")
            whole = part[1]
        return textwrap.indent(MARK.sub("", whole).strip("\n"), margin)

    return INCLUDE.sub(text, page)


class Failure(AssertionError):
    """A block that did not do what its page says."""

    def __init__(self, block: Block, why: str) -> None:
        super().__init__(f"the {block.language} block at line {block.line}: {why}\n\n{block.text}")


def run(page: str, folder: Path) -> list[str]:
    """Run the blocks of a page in `folder`, which need not be there; returns the libraries that some of them wanted and
    that are not installed. A block that imports one is left out, and what follows it in its section. Raises Failure."""
    shutil.copytree(ROOT / "models", folder / "models", ignore=shutil.ignore_patterns("book"))
    found, missing, left_out = list(blocks(included(page))), [], -1
    names: dict[str, Any] = {"__name__": "__main__"}
    for block, behind in zip_longest(found, found[1:]):
        if block.language not in ("nn", "sh", "python") or block.section == left_out:
            continue
        if absent := _absent(block):
            missing, left_out = missing + absent, block.section
            continue
        said = _said(block, folder, names)
        if behind is not None and behind.language == "output":
            _compare(behind, said)
    drawn = [name for name in pictures(page) if not (folder / name).is_file()]
    assert missing or not drawn, f"no command of the page draws {drawn}"
    return missing


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run lines of bash in a folder, to the first that fails; what they print is `stdout`, errors as well."""
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _absent(block: Block) -> list[str]:
    """The libraries that a block of Python imports and that are not installed."""
    if block.language != "python":
        return []
    imports = [n for n in ast.walk(ast.parse(block.text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = [a.name if isinstance(n, ast.Import) else n.module or "" for n in imports for a in n.names]
    return sorted({top for name in names if find_spec(top := name.split(".")[0]) is None})


def _said(block: Block, folder: Path, names: dict[str, Any]) -> str:
    """What a block prints when it is run."""
    match block.language:
        case "nn":
            file = folder / (block.title or f"line_{block.line}.nn")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, "utf-8")
            return _check(block, file, folder)
        case "sh":
            return _shell(block, folder)
        case _:
            printed = StringIO()
            try:
                with chdir(folder), redirect_stdout(printed):
                    exec(compile(block.text, f"<line {block.line}>", "exec"), names)
            except Exception as e:
                raise Failure(block, f"{type(e).__name__}: {e}") from e
            return printed.getvalue()


def _check(block: Block, file: Path, folder: Path) -> str:
    """`nnc check FILE`."""
    from nnc.runtime.cli import main

    printed = StringIO()
    with chdir(folder), redirect_stdout(printed), redirect_stderr(printed):
        code = main(["check", str(file.relative_to(folder))])
    if code:
        raise Failure(block, printed.getvalue())
    return printed.getvalue()


def _shell(block: Block, folder: Path) -> str:
    """The lines in bash, where `nnc` and `python3` are these; a terminal of 100 columns."""
    commands = folder.with_name(f"{folder.name}.bin")
    commands.mkdir(exist_ok=True)
    for name, module in (("nnc", "-m nnc "), ("python3", "")):
        (commands / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module}"$@"\n')
        (commands / name).chmod(0o755)
    done = shell(block.text, folder, PATH=f"{commands}:{os.environ['PATH']}", COLUMNS="100")
    if done.returncode:
        raise Failure(block, f"exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def _compare(expected: Block, said: str) -> None:
    rules = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if not doctest.OutputChecker().check_output(expected.text, said, rules):
        raise Failure(expected, f"this was printed:\n\n{said}\n\nwhere this is promised:")
