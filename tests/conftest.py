"""What all tests share: how the tree is collected, and the options of the golden runner."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite what stands below `## expect` in the golden cases"
    )


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The root of the repository is the package `nnc`; pytest must not import it a second time as one of its own."""
    return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None
