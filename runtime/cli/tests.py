"""The command `test`: the tests that stand in `.nn` files."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import click

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import DataError, NncError, error
from .show import say


@click.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("-k", "name", metavar="TEXT", help="Only tests whose name has this text.")
@click.option("--target-cpu", default="native", metavar="CPU")
@click.option("--no-cache", is_flag=True)
@click.option("--json", "as_json", is_flag=True, help="Results as JSON on stdout.")
def test(paths: tuple[str, ...], name: str | None, target_cpu: str, no_cache: bool, as_json: bool) -> int:
    """Run the in-file tests of .nn files, and of all below folders."""
    from ...compiler.settings import Settings
    from ...dsl.parser import read_source
    from ...dsl.render import to_json
    from ..check.testing import files_under, run_file
    from .show import print_json, show_diagnostics

    start, settings = perf_counter(), Settings(target_cpu=target_cpu, cache=not no_cache)
    passed, failed, code = 0, 0, 0
    results = []

    def tell(file: str, test: str, failures: tuple[Diagnostic, ...]) -> None:
        nonlocal passed, failed
        passed, failed = passed + (not failures), failed + bool(failures)
        results.append({"file": file, "test": test, "passed": not failures, "diagnostics": [*map(to_json, failures)]})
        if not as_json:
            say(f"{'FAIL' if failures else 'ok  '} {file}" + (f": {test}" if test else ""))
            if failures:
                show_diagnostics(failures)

    for path in map(Path, paths):
        files = files_under(path)
        if not files:
            raise error("E0620", f"{path}: no .nn files", kind=DataError)
        for file in files:
            try:
                for result in run_file(read_source(file), settings):
                    if name is None or name in result.name:
                        tell(result.file, result.name, result.failures)
            except NncError as e:
                code = max(code, e.exit_code)
                tell(str(file), "", e.diagnostics)
    if as_json:
        print_json({"passed": passed, "failed": failed, "results": results})
    else:
        say(f"{passed} passed, {failed} failed in {perf_counter() - start:.1f} s")
    if name is not None and not results:
        say(f"no test has {name!r} in its name", err=True)
        return 1
    return max(code, 1) if failed else 0
