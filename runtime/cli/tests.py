"""The command `test`: the tests that stand in `.nn` files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import click

from ...compiler.settings import Settings
from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import DataError, NncError, error
from .show import duration, is_on, say, show_diagnostics, show_result, working
from .watch import again, beside, watching


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("-k", "name", metavar="TEXT", help="Only tests whose name has this text.")
@click.option("--target-cpu", default="native", metavar="CPU")
@click.option("--no-cache", is_flag=True)
@watching
def test(paths: tuple[str, ...], name: str | None, target_cpu: str, no_cache: bool, watch: bool) -> int:
    """Run the tests in .nn files, and in all below folders."""
    settings = Settings(target_cpu=target_cpu, cache=not no_cache)
    if watch:
        again(lambda: beside(map(Path, paths)), lambda: _test(paths, name, settings))
    return _test(paths, name, settings)


def _test(paths: tuple[str, ...], name: str | None, settings: Settings) -> int:
    start, found = perf_counter(), Found(name)
    with working("testing"):
        for file in files_of(paths):
            found.run(file, settings)
    seconds = perf_counter() - start
    passed = sum(r["passed"] for r in found.results)
    failed = len(found.results) - passed
    summary = f"{passed} passed, {failed} failed in {duration(seconds)}"
    facts = {"passed": passed, "failed": failed, "seconds": seconds, "results": found.results}
    show_result(facts, lambda: say(summary, bold=True))
    if name is not None and not found.results:
        say(f"no test has {name!r} in its name", err=True)
        return 1
    return max(found.code, 1) if failed else 0


def files_of(paths: tuple[str, ...]) -> Iterator[Path]:
    """The .nn files of these paths (E0620 where one has none)."""
    from ..check.testing import files_under

    for path in map(Path, paths):
        files = files_under(path)
        if not files:
            raise error("E0620", f"{path}: no .nn files", kind=DataError)
        yield from files


@dataclass(slots=True)
class Found:
    """What tests gave, and the exit code of files that could not be tested."""

    name: str | None  # only tests with this text in their names
    results: list[dict[str, Any]] = field(default_factory=list)
    code: int = 0

    def run(self, file: Path, settings: Settings) -> None:
        from ...dsl.parser import read_source
        from ..check.testing import run_file

        try:
            for result in run_file(read_source(file), settings):
                if self.name is None or self.name in result.name:
                    self._take(result.file, result.name, result.failures)
        except NncError as e:
            self.code = max(self.code, e.exit_code)
            self._take(str(file), "", e.diagnostics)

    def _take(self, file: str, test: str, failures: tuple[Diagnostic, ...]) -> None:
        from ...dsl.render import to_json

        diagnostics = [*map(to_json, failures)]
        self.results.append({"file": file, "test": test, "passed": not failures, "diagnostics": diagnostics})
        what, color = ("FAIL", "red") if failures else ("ok  ", "green")
        if failures or not is_on("quiet"):
            say(f"{what} {file}" + (f": {test}" if test else ""), fg=color)
        if failures and not is_on("json"):
            show_diagnostics(failures)
