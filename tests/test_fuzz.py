"""Random programs and mutants of files, each in a process of its own that is watched: see `fuzz`. They are judged
beside the other tests, which leave a processor idle (`conftest`), and asked for at the end."""

from __future__ import annotations

import datetime
import os

import pytest

TODAY = str(datetime.date.today().toordinal())


# Those from 100 on found each of five faults that there were when this was written.
@pytest.mark.beside("--seed", "0", "--first", "100", "--programs", "200", "--shrink")
def test_random_programs_of_one_seed(beside) -> None:
    beside()


@pytest.mark.beside("--seed", "47", "--only", "163")
def test_a_window_with_a_factor_that_is_not_finite(beside) -> None:
    beside()


@pytest.mark.beside("--programs", "40", "--seed", "2", "--guard-pages")
def test_no_access_outside_a_buffer(beside) -> None:
    beside()


@pytest.mark.beside("--mutants", "300", "--seed", "1")
def test_mutants_are_programs_or_typed_errors(beside) -> None:
    beside()


@pytest.mark.skipif("CI" not in os.environ, reason="more programs, others each day: set CI")
@pytest.mark.beside("--programs", "1500", "--seed", TODAY, "--shrink")
def test_random_programs_of_the_day(beside) -> None:
    beside()
