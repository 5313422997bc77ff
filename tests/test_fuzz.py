"""Random programs and mutants of files, each in a process of its own that is watched: see `fuzz`."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .fuzz import steps
from .fuzz.judge import judge
from .fuzz.program import Program
from .fuzz.runner import verdicts

ROOT = Path(__file__).resolve().parent.parent
TODAY = datetime.date.today().toordinal()


def find_nothing(*arguments: object) -> None:
    """`python -m tests.fuzz` with these arguments finds nothing."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *map(str, arguments)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert run.returncode == 0, run.stdout


# Which programs these are changes with the table of productions.
@pytest.mark.parametrize("first", range(100, 300, 50))
def test_random_programs_of_one_seed(first: int) -> None:
    find_nothing("--seed", 0, "--first", first, "--programs", 50, "--shrink")


def test_a_window_with_a_factor_that_is_not_finite() -> None:
    """A random program that was found once, as it was then."""
    program = Program(
        """fn f(x1: f32[1, 4, 17, 7], x2: f32[1, 4, 5, 2], x7: f32[1, 1, 5, 3], x10: f32[4, 17, 7, 0], \
x14: f32[7, 17, 0, 4], x17: f32[1, 3, 1, 5]) {
    v3 = slide(x1, x2, 3, 1, 1, 1, false)
    v4 = softplus(v3)
    v5 = x1 + -1
    v6 = where(v3 > 0.3, v3, v3)
    v8 = grad(sum(v6^2), v3)
    v9 = v5[1:] - v5[0:0]
    v11 = transpose(v9, [1, 2, 3, 0]) * x10
    v12 = where(v6 <= x7, v8, v6)
    v13 = sin(v4)
    v15 = transpose(x10, [2, 1, 3, 0]) + x14
    v16 = grad(sum(tanh(checkpoint(v11 * 2))), v9)
    v18 = transpose(v13, [0, 3, 1, 2]) + x17
    return (v5, v18)
}
""",
        values="wild",
        seed=47000304,
    )
    ((_, verdict),) = verdicts(lambda _: judge(program), [0])
    assert verdict.kind == "ok", verdict.message


def test_a_product_that_may_overflow_on_its_way_to_0() -> None:
    """Another: in float32 the 210 factors are infinite before a 0 comes, or after it, and in float64 they never are."""
    program = Program(
        """fn f(x5: f32[3, 70], x6: f32[70, 70]) {
    v7 = x5 @ x6.T
    return (v7, prod(v7, axis = [0, 1]))
}
""",
        values="whole",
        seed=777002434,
    )
    ((_, verdict),) = verdicts(lambda _: judge(program), [0])
    assert verdict.kind == "ok", verdict.message


@pytest.mark.parametrize("size", [4, 5, 16])
def test_a_window_over_nothing_reads_nothing(size: int) -> None:
    """A random program: where the filter is one longer, the slope reads of an operand without elements."""
    program = Program(
        """fn f(x1: f32[N], x2: f32[5]) {
    v3[i] = sum[u](x1[i - u + 5 - 1] * x2[u])
    v5 = grad(sum(tanh(checkpoint(v3 * 2))), x1)
    return (v3, v5)
}
""",
        ({"N": size},),
    )
    ((_, verdict),) = verdicts(lambda _: judge(program, ("compiled",), guard_pages=True), [0])
    assert verdict.kind == "ok", verdict.signature


STEP = """train M(x) {
    minimize one = mean(y^2) over weights([M.a, M.b]) with SGD(lr = 0.5), biases(M.a) with Adam(0.1)
    params(Slow.a) := 0.75 * params(Slow.a) + 0.25 * params(M.a)
}
"""


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, None),
        ({"M.a.W": 0.9}, "one over weights([M.a, M.b]): the slope is"),
        ({"M.c.W": 0.1}, "M.c.W has moved, which nothing trains"),
        ({"Slow.a.b": 1.0}, "Slow.a.b is not 0.75 * params(Slow.a) + 0.25 * params(M.a)"),
    ],
)
def test_a_step_that_is_not_what_its_text_says_is_seen(wrong: dict[str, float], told: str | None) -> None:
    paths = ["M.a.W", "M.a.b", "M.b.W", "M.c.W", "Slow.a.W", "Slow.a.b"]
    roles = {p: "weight" if p.endswith("W") else "bias" for p in paths}
    old = {p: np.linspace(-1, 1, 4) + k for k, p in enumerate(paths)}

    def loss(_: str, at: dict[str, np.ndarray]) -> float:
        return float(np.sum(at["M.a.W"] ** 2) + np.sum(np.sin(at["M.b.W"])) + at["M.c.W"].sum())

    new = {"M.a.W": old["M.a.W"] * 0.0, "M.b.W": old["M.b.W"] - 0.5 * np.cos(old["M.b.W"]), "M.a.b": old["M.a.b"] - 0.1}
    new["Slow.a.W"], new["Slow.a.b"] = (0.75 * old[f"Slow.a.{k}"] + 0.25 * new[f"M.a.{k}"] for k in "Wb")
    for path, by in wrong.items():
        new[path] = new.get(path, old[path]) + by
    found = steps.wrong(STEP, roles, old, new, loss)
    assert found is None if told is None else told in str(found)


def test_no_access_outside_a_buffer() -> None:
    find_nothing("--programs", 40, "--seed", 2, "--guard-pages")


@pytest.mark.parametrize("first", [0, 100, 200])
def test_mutants_are_programs_or_typed_errors(first: int) -> None:
    find_nothing("--mutants", 100, "--first", first, "--seed", 1)


@pytest.mark.skipif("CI" not in os.environ, reason="more programs, others each day: set CI")
@pytest.mark.parametrize("first", range(0, 700, 100))
def test_random_programs_of_the_day(first: int) -> None:
    find_nothing("--programs", 100, "--first", first, "--seed", TODAY, "--shrink")
