"""The site of the documentation: what mkdocs is told of pages that lie in the rooms they describe.

In: the tree. Out: pages with the paths of the repository, so that a link leads to the same in both; the reference,
which is made of what the sources say; pictures, which the commands of a page draw.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import reference
import snippets
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = snippets.ROOT
ROOMS = ("dsl", "compiler", "runtime", "models", "tests")
LINK = re.compile(r"(?<=\]\()[^)#: ]+(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for file in [f for f in files if f.src_dir == config.docs_dir]:
        files.remove(file)
    for path in [*ROOT.glob("*.md"), ROOT / "LICENSE", *(p for r in ROOMS for p in _shown(ROOT / r))]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for name, text in reference.pages():
        files.append(File.generated(config, name, content=text))
    for path in sorted(p for r in ROOMS for p in (ROOT / r).rglob("*.md")):
        for name, picture in _pictures(path, config.extra["draw"]):
            files.append(File.generated(config, name, content=picture))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """A page with what it includes; a link to a folder leads to the page that says what is in it."""
    here = PurePosixPath(page.file.src_uri).parent

    def target(found: re.Match[str]) -> str:
        path = found[0].rstrip("/") + "/README.md"
        known = files.get_file_from_path(_plain(here / path)) if "." not in PurePosixPath(found[0]).name else None
        return path if known else found[0]

    return LINK.sub(target, snippets.included(markdown))


def _shown(room: Path) -> list[Path]:
    """The pages of a room, how they look, and the files in the language that they speak of."""
    return sorted(p for kind in ("*.md", "*.css", "*.nn") for p in room.rglob(kind) if "golden" not in p.parts)


def _plain(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def _pictures(path: Path, draw: bool) -> Iterator[tuple[str, bytes]]:
    """The pictures of a page: where they lie on the site, and what is in them, nothing unless they are to be drawn.
    Raises snippets.Failure."""
    text = path.read_text("utf-8")
    for name in snippets.pictures(text):
        where = (path.parent.relative_to(ROOT) / name).as_posix()
        yield where, (_run(text) / name).read_bytes() if draw else b""


@cache
def _run(page: str) -> Path:
    """Where a page was run, which is done once for each text."""
    folder = Path(tempfile.mkdtemp(prefix="nnc-book-")) / "page"
    snippets.run(page, folder)
    return folder
