"""What a report of a fault needs to say: versions, the machine, where things are kept, what else is installed."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import click

ABSENT = "absent"
REPORTED = ("avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512vnni", "neon", "asimd", "sve")  # features that decide


def shown(context: click.Context, _: click.Parameter, asked: bool) -> None:
    """`--version`: one line, or with `--verbose` all facts; then the command is over."""
    if not asked or context.resilient_parsing:
        return
    click.echo(f"nnc, version {_version('nnc')}")
    if context.params.get("verbose"):
        for name, value in facts():
            click.echo(f"{name + ':':12} {value}")
    context.exit()


def facts() -> Iterator[tuple[str, str]]:
    """(name, value) of each fact."""
    from ...compiler.native import objects
    from ...dsl.errors import NncError
    from ..settings import threads

    yield "nnc in", str(Path(__file__).parents[2])
    yield "Python", f"{platform.python_version()} {platform.python_implementation()}, {sys.executable}"
    yield "system", platform.platform()
    try:
        target = objects.target()
    except NncError as e:
        yield "processor", e.diagnostics[0].message
    else:
        on = [f for f in REPORTED if f"+{f}" in target.features.split(",")]
        yield (
            "processor",
            f"{target.cpu} ({target.triple.partition('-')[0]}), {8 * target.vector_bytes} bits, {' '.join(on)}",
        )
    yield "threads", f"{threads(None)} of {os.cpu_count()} processors"
    yield "memory", f"{_memory() / 2**30:.1f} GB"
    yield "cache", _cache()
    yield "LLVM", objects.version()
    needed, extras = _libraries()
    yield "needs", ", ".join(f"{name} {_version(name)}" for name in needed)
    yield "extras", ", ".join(f"{name} {_version(name)}" for name in extras if _version(name) != ABSENT) or "none"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ABSENT


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0


def _cache() -> str:
    from ...dsl.home import default_directory

    try:
        return str(default_directory() or "off")
    except OSError as e:
        return str(e)


def _libraries() -> tuple[list[str], list[str]]:
    """The libraries that nnc needs, and those that its extras bring, by name."""
    needed, extras = dict[str, None](), dict[str, None]()
    for line in (requires("nnc") or []) if _version("nnc") != ABSENT else []:
        requirement, _, condition = line.partition(";")
        found = re.match(r"[\w.-]+", requirement)
        if found is not None:
            (extras if "extra" in condition else needed)[found[0]] = None
    return list(needed), list(extras)
