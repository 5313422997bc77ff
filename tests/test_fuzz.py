"""Random programs and mutants of files, each in a process of its own that is watched: see `fuzz`."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TODAY = str(datetime.date.today().toordinal())


def fuzz(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.fuzz", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_random_programs_of_one_seed() -> None:
    """Those from 100 on found each of five faults that there were when this was written."""
    fuzz("--seed", "0", "--first", "100", "--programs", "200", "--shrink")


def test_no_access_outside_a_buffer() -> None:
    fuzz("--programs", "40", "--seed", "2", "--guard-pages")


def test_mutants_are_programs_or_typed_errors() -> None:
    fuzz("--mutants", "300", "--seed", "1")


@pytest.mark.skipif("CI" not in os.environ, reason="more programs, others each day: set CI")
def test_random_programs_of_the_day() -> None:
    fuzz("--programs", "1500", "--seed", TODAY, "--jobs", "2", "--shrink")
