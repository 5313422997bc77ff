"""Random programs and mutants of files, each in a process of its own that is watched: see `fuzz`."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TODAY = datetime.date.today().toordinal()


def find_nothing(*arguments: object) -> None:
    """`python -m tests.fuzz` with these arguments finds nothing."""
    run = subprocess.run([sys.executable, "-m", "tests.fuzz", *map(str, arguments)], cwd=ROOT, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert run.returncode == 0, run.stdout


# Those from 100 on found each of five faults that there were when this was written.
@pytest.mark.parametrize("first", range(100, 300, 50))
def test_random_programs_of_one_seed(first: int) -> None:
    find_nothing("--seed", 0, "--first", first, "--programs", 50, "--shrink")


def test_a_window_with_a_factor_that_is_not_finite() -> None:
    find_nothing("--seed", 47, "--only", 163)


def test_no_access_outside_a_buffer() -> None:
    find_nothing("--programs", 40, "--seed", 2, "--guard-pages")


@pytest.mark.parametrize("first", [0, 100, 200])
def test_mutants_are_programs_or_typed_errors(first: int) -> None:
    find_nothing("--mutants", 100, "--first", first, "--seed", 1)


@pytest.mark.skipif("CI" not in os.environ, reason="more programs, others each day: set CI")
@pytest.mark.parametrize("first", range(0, 1500, 100))
def test_random_programs_of_the_day(first: int) -> None:
    find_nothing("--programs", 100, "--first", first, "--seed", TODAY, "--shrink")
