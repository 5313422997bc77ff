"""The Pygments lexer: loses nothing, meets no unknown sign in the files of the project, knows words by their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnc.dsl.parser import read_source

pygments = pytest.importorskip("pygments")
from pygments.token import Error, Keyword, Name, Token  # noqa: E402

from nnc.dsl.lexer import NnLexer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "dsl" / "std").glob("*.nn"), *(ROOT / "models").glob("*.nn")])


def kinds(text: str) -> dict[str, object]:
    return {word: kind for kind, word in NnLexer().get_tokens(text) if word.strip()}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_files_of_the_project(path: Path) -> None:
    text = read_source(path).text
    tokens = list(NnLexer(ensurenl=False, stripnl=False).get_tokens(text))
    assert "".join(word for _, word in tokens) == text
    assert not [word for kind, word in tokens if kind in Error]


def test_words_are_keywords_by_their_place() -> None:
    text = "layer L(state: f32[B], bias: bool = true) -> f32[B] {\n    weight W: f32 = 0\n"
    text += "    bias = state\n    stop = when\n}"
    found = list(NnLexer().get_tokens(text))
    assert [k for k, w in found if w == "state"] == [Name, Name]
    assert [k for k, w in found if w == "bias"] == [Name, Name]
    assert kinds(text)["layer"] is Keyword.Declaration and kinds(text)["weight"] is Keyword.Declaration
    assert kinds(text)["L"] is Name.Function and kinds(text)["stop"] is Name
    assert kinds(text)["f32"] is Keyword.Type and kinds(text)["bool"] is Keyword.Type


def test_labels_strings_and_conditions() -> None:
    found = kinds('test "a" {\n    y = x |> conv1: Conv(6).T\n    expect y == 1 within 1e-3\n    stop when t > 3\n}')
    assert found["test"] is Keyword.Declaration and found["conv1"] is Name.Label and found["T"] is Name.Attribute
    assert found["within"] is Keyword and found["expect"] is Keyword and found["stop"] is found["when"] is Keyword
    assert found["1e-3"] in Token.Literal.Number


def test_pygments_finds_it() -> None:
    from pygments.lexers import get_lexer_by_name

    try:
        lexer = get_lexer_by_name("nn")
    except pygments.util.ClassNotFound:
        pytest.skip("nnc is not installed, so its entry points are unknown")
    assert lexer.name == "nnc"
