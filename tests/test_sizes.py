"""Sizes that only run time knows: their arithmetic, and what is asked of them where the compiler cannot decide."""

from __future__ import annotations

import random

import pytest

from nnc.compiler.types.sizes import divide, parse_size, substitute


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("H // 2", "H // 2"), ("2 * (H // 2)", "2*(H // 2)"), ("(H + 1) // 2", "(H + 1) // 2"),
        ("(H - 1) // 2 + 1", "(H + 1) // 2"), ("(4*B + 7) // 4", "B + 1"), ("5*B // 2", "2*B + B // 2"),
        ("H // 2 // 2", "H // 4"), ("2 * (2 * (H // 2) // 2)", "2*(H // 2)"), ("(2*W) // 4", "W // 2"),
        ("(6*H + 5) % 4", "2*(H % 2) + 1"), ("H % 2 * B", "B*(H % 2)"), ("A - H // 2", "A - H // 2"),
        ("-(H // 2)", "-(H // 2)"), ("(-H) // 2", "(-H) // 2"), ("H // 2 % 3", "(H // 2) % 3"),
        ("A * H // 3", "A*H // 3"), ("A * (H // 3)", "A*(H // 3)"), ("(A + H) // B", "(A + H) // B"),
    ],
)  # fmt: skip
def test_a_size_is_shown_in_lowest_terms(written: str, shown: str) -> None:
    assert str(parse_size(written)) == shown


def _random(rng: random.Random, depth: int) -> str:
    match rng.randrange(8) if depth else rng.randrange(2):
        case 0:
            return rng.choice("ABH")
        case 1:
            return str(rng.randrange(1, 7))
        case 2 | 3:
            return f"({_random(rng, depth - 1)} {rng.choice('+-')} {_random(rng, depth - 1)})"
        case 4:
            return f"({_random(rng, depth - 1)} * {rng.randrange(1, 5)})"
        case 5:
            return f"({_random(rng, depth - 1)} % {rng.randrange(1, 7)})"
    return f"({_random(rng, depth - 1)} // {rng.randrange(1, 7)})"


def test_sizes_are_what_they_say() -> None:
    rng = random.Random(3)
    for _ in range(3000):
        text = _random(rng, 5)
        size = parse_size(text)
        values = {name: rng.randrange(20) for name in "ABH"}
        assert substitute(size, values) == eval(text, dict(values)), text
        assert parse_size(str(size)) == size, text
        quotient, remainder = divide(size, 6)
        assert substitute(quotient * 6 + remainder, values) == substitute(size, values), text
