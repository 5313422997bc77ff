"""Every code that can be raised has a page, every page a code, and the examples on the pages are what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nnc.compiler.autodiff.differentiate import differentiate
from nnc.compiler.elaborate import Program
from nnc.compiler.settings import Settings
from nnc.dsl.codes import explain, known
from nnc.dsl.errors import SourceError
from nnc.dsl.source import Source

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for room in ("dsl", "compiler", "runtime") for p in (ROOT / room).rglob("*.py"))
EXAMPLES = {code: re.findall(r"```nn\n(.*?)```", explain(code) or "", re.S) for code in known()}


def raised() -> set[str]:
    """The codes that stand as a string of their own in the sources."""
    return {code for p in SOURCES for code in re.findall(r'"(E0[1-9][0-9]{2})"', p.read_text("utf-8"))}


def test_codes_and_pages_are_the_same() -> None:
    assert sorted(raised()) == sorted(known())


@pytest.mark.parametrize("code", known())
def test_a_page_begins_with_its_code(code: str) -> None:
    text = explain(code)
    assert text and re.match(rf"# {code}: [^\n]+\n\n\S", text) and text.endswith("\n")
    assert ("Wrong:" in text) == ("Right:" in text)


@pytest.mark.parametrize("code", [c for c, examples in EXAMPLES.items() if examples])
def test_the_examples_are_wrong_and_right(code: str) -> None:
    wrong, right = EXAMPLES[code]
    with pytest.raises(SourceError) as caught:
        check(wrong)
    assert code in [d.code for d in caught.value.diagnostics]
    check(right)


def check(text: str) -> None:
    program = Program(Source("page.nn", text), Settings())
    for entry in program.entries:
        differentiate(program.graph(entry))


def test_what_is_no_code_has_no_page() -> None:
    assert explain("E9999") is None and explain("../README") is None and explain("e0301") == explain("E0301")
