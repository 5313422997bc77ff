"""`python -m tests.bench`: nnc beside the peers that are installed, row by row."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

from .peers import MODULES, SLOW, missing
from .race import Failed, once, race
from .report import line, machine_text, show, show_against
from .rows import ROWS


def earlier(path: str) -> dict[str, Any]:
    """What `--json` wrote in another run."""
    try:
        found: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {e}") from e
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="one run for each (1)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="rows whose names have this in them")
    parser.add_argument("--peers", nargs="*", choices=[m for m in MODULES if m != "nnc"], help="beside these alone")
    parser.add_argument("--slow", action="store_true", help="also peers that take long to compile: torch-compile")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each contender, in turns (7)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all that was measured")
    parser.add_argument("--against", type=earlier, metavar="OLD.json", help="compare with what --json wrote earlier")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    return parser.parse_args()


def contenders(options: argparse.Namespace) -> list[str]:
    """Who takes part; a line for each peer that is not installed."""
    wanted = options.peers
    if wanted is None:
        wanted = [name for name in MODULES if name != "nnc" and (options.slow or name not in SLOW)]
    lacking = {name: missing(name) for name in wanted}
    for name, packages in lacking.items():
        if packages:
            print(f"{name} is left out: {', '.join(packages)} not installed (`pip install '.[bench]'`)")
    return ["nnc", *(name for name in wanted if not lacking[name])]


def versions(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in sorted({p for name in names for p in MODULES[name][1]}):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> int:
    options = arguments()
    rows = [r for r in ROWS.values() if any(part.lower() in r.name.lower() for part in options.only)]
    if not rows:
        print(f"no row has {' or '.join(options.only)} in its name; `--list` has them all", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(r.name for r in rows))
        return 0
    names = contenders(options)
    out: dict[str, Any] = {
        "platform": platform.platform(), "python": platform.python_version(), "versions": versions(names),
        "machine": {}, "rows": [],
    }  # fmt: skip
    console = Console()
    console = console if console.is_terminal else Console(width=160)  # of a file, too, a row is a line
    status = 0
    try:
        measure(options, rows, names, out)
    except KeyboardInterrupt:
        print("\ninterrupted: what was measured until here")
        status = 130
    show(out["rows"], out["machine"], console)
    if options.against:
        show_against(out["rows"], options.against["rows"], console)
    return status


def measure(options: argparse.Namespace, rows: Sequence[Any], names: Sequence[str], out: dict[str, Any]) -> None:
    """Fill `out`, and the file of `--json`, row by row: what was measured is there when somebody has seen enough."""
    for threads in options.threads:
        with tempfile.TemporaryDirectory(prefix="nnc-bench-") as folder:
            try:
                out["machine"][str(threads)] = once("machine", "", threads, Path(folder))
            except Failed as e:
                sys.exit(f"the machine cannot be measured: {e}")
        print(machine_text(threads, out["machine"][str(threads)]), flush=True)
    for row in rows:
        for threads in options.threads:
            with tempfile.TemporaryDirectory(prefix="nnc-bench-") as folder:
                out["rows"].append(race(row, threads, names, options.rounds, Path(folder)))
            print(line(out["rows"][-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(out, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
