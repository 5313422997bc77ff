"""Doing something again when files change: `--watch`. Files are asked for their times a few times a second."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import sleep
from typing import Any, NoReturn

import click

from ...dsl.errors import NncError
from . import live
from .show import is_on, note, show_error

_SECONDS = 0.2  # between two looks

watching = click.option("--watch", is_flag=True, help="Do it again when a file changes, until Ctrl-C.")


def again(files: Callable[[], Iterable[Path]], act: Callable[[], Any]) -> NoReturn:
    """Act, and act again each time one of the files is changed, made or removed. An error is shown, and is no end."""
    if is_on("json"):
        raise click.UsageError("--watch is for people: it takes no --json")
    while True:
        seen = _times(files())  # before acting: what changes meanwhile is seen afterwards
        if live.is_live(sys.stdout):
            click.clear()
        try:
            act()
        except NncError as e:
            show_error(e)
        note("waiting for a change; Ctrl-C ends", dim=True)
        while _times(files()) == seen:
            sleep(_SECONDS)
        _wait_for_rest(files)


def _wait_for_rest(files: Callable[[], Iterable[Path]]) -> None:
    """An editor may empty a file before it writes it."""
    seen = None
    while (now := _times(files())) != seen:
        seen = now
        sleep(_SECONDS)


def beside(paths: Iterable[Path]) -> list[Path]:
    """The .nn files of these folders and below, and of a file those in its folder, which it may import."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.rglob("*.nn") if path.is_dir() else {path, *path.parent.glob("*.nn")})
    return found


def _times(files: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """When each file that is there was last changed, and how long it is."""
    found = {}
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            continue
        found[file] = (stat.st_mtime_ns, stat.st_size)
    return found
