"""The renderer of diagnostics: the style of the architecture page, in every odd case."""

from __future__ import annotations

import json
import re
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnc.dsl.diagnostics import Diagnostic, Label
from nnc.dsl.errors import SourceError
from nnc.dsl.render import render as render_diagnostic
from nnc.dsl.render import to_json
from nnc.dsl.source import Source, Span


def render(source: Source, *labels: tuple[str, str], help: tuple[str, ...] = ()) -> str:
    """A label is a piece of the text and what is said of it."""
    made = []
    for piece, text in labels:
        at = source.text.index(piece)
        made.append(Label(Span(source, at, at + len(piece)), text))
    return render_diagnostic(Diagnostic("E0301", "sizes disagree", tuple(made), help))


def block(text: str) -> str:
    return dedent(text).strip("\n")


LENET = Source("lenet5.nn", "\n" * 5 + "    z = c5 @ W5.T + b5\n")


def test_the_example_of_the_architecture() -> None:
    diagnostic = Diagnostic(
        "E0301", "inner sizes of @ must agree, but 576 is not 400",
        (
            Label(Span(LENET, 16, 17)), Label(Span(LENET, 13, 15), "f32[B, 576], from `flatten` of 16 x 6 x 6 at 4:31"),
            Label(Span(LENET, 18, 22), "f32[400, 84], declared at 5:17"),
        ),
        ("with `kernel = 5` at 3:28 the maps are 5 x 5 and flatten to 400",),
    )  # fmt: skip
    assert render_diagnostic(diagnostic) == block("""
        error[E0301]: inner sizes of @ must agree, but 576 is not 400
          --> lenet5.nn:6:12
           |
         6 |     z = c5 @ W5.T + b5
           |         -- ^ ---- f32[400, 84], declared at 5:17
           |         |
           |         f32[B, 576], from `flatten` of 16 x 6 x 6 at 4:31
           = help: with `kernel = 5` at 3:28 the maps are 5 x 5 and flatten to 400
        """)
    assert str(SourceError([diagnostic, diagnostic])).count("error[E0301]") == 2


def test_texts_hang_from_right_to_left() -> None:
    assert render(Source("a.nn", "f(a, b, c)"), ("b", "second"), ("a", "first"), ("c", "third")) == block("""
        error[E0301]: sizes disagree
          --> a.nn:1:6
           |
         1 | f(a, b, c)
           |   -  ^  - third
           |   |  |
           |   |  second
           |   first
        """)


def test_labels_that_overlap() -> None:
    assert render(Source("a.nn", "x = aa + bb"), ("aa + bb", "whole"), ("aa", "left")) == block("""
        error[E0301]: sizes disagree
          --> a.nn:1:5
           |
         1 | x = aa + bb
           |     ^^^^^^^ whole
           |     |
           |     left
        """)


def test_lines_between_and_lines_left_out() -> None:
    source = Source("a.nn", "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten")
    assert render(source, ("ten", ""), ("one", "first"), ("three", "third"), ("four", "")) == block("""
        error[E0301]: sizes disagree
           --> a.nn:10:1
            |
          1 | one
            | --- first
          2 | two
          3 | three
            | ----- third
          4 | four
            | ----
         ...
         10 | ten
            | ^^^
        """)


def test_other_files_have_their_own_place() -> None:
    one, two = Source("one.nn", "import"), Source("two.nn", "\nconst")
    diagnostic = Diagnostic("E0202", "twice", (Label(Span(one, 0, 6)), Label(Span(two, 1, 6), "first here")))
    assert render_diagnostic(diagnostic) == block("""
        error[E0202]: twice
          --> one.nn:1:1
           |
         1 | import
           | ^^^^^^
          --> two.nn:2:1
           |
         2 | const
           | ----- first here
        """)


def test_tabs_and_wide_characters() -> None:
    assert render(Source("a.nn", "\tx = 漢字 + é\u0301 + y"), ("y", "here"), ("漢字", "wide"), ("x", "")) == block("""
        error[E0301]: sizes disagree
          --> a.nn:1:16
           |
         1 |     x = 漢字 + é\u0301 + y
           |     -   ----       ^ here
           |         |
           |         wide
        """)


def test_spans_of_several_lines_and_at_the_end() -> None:
    source = Source("a.nn", "f(\n  x,\n)\n")
    assert render(source, ("f(\n  x,\n)", "the call")).endswith(" 1 | f(\n   | ^^ the call")
    end = Diagnostic("E0101", "the definition ends", (Label(Span(source, 10, 10), "here"),))
    assert render_diagnostic(end).endswith(" 4 |\n   | ^ here")


def test_long_lines_are_cut_around_the_place() -> None:
    text = render(Source("a.nn", "a + " * 100_000 + "here" + " + b" * 100_000), ("here", "the place"))
    line, mark = text.split("\n")[-2:]
    assert len(line) < 200 and line.index("here") == mark.index("^^^^ the place")


def test_messages_without_a_place_and_other_severities() -> None:
    warning = Diagnostic("E0605", "too large", (), ("less",), "warning")
    assert render_diagnostic(warning) == "warning[E0605]: too large\n  = help: less"


def test_nothing_drives_the_terminal() -> None:
    source = Source("a.nn", "x\x1b[31m\x00")
    text = render_diagnostic(Diagnostic("E0102", "bad \x1b[2J\nsign", (Label(Span(source, 1, 2), "\x07bell"),)))
    assert all(c.isprintable() or c == "\n" for c in text)


def test_long_messages_are_cut() -> None:
    assert len(render_diagnostic(Diagnostic("E0201", f"unknown name `{'x' * 1_000_000}`"))) < 1100


def test_color_changes_nothing_but_color() -> None:
    diagnostic = Diagnostic("E0301", "m", (Label(Span(LENET, 13, 15), "t"), Label(Span(LENET, 16, 17), "u")), ("h",))
    colored = render_diagnostic(diagnostic, color=True)
    assert colored != render_diagnostic(diagnostic)
    assert re.sub("\x1b\\[[0-9;]*m", "", colored) == render_diagnostic(diagnostic)


def test_json_says_the_same() -> None:
    diagnostic = Diagnostic("E0301", "m", (Label(Span(LENET, 13, 15), "t"),), ("h",))
    assert json.loads(json.dumps(to_json(diagnostic))) == {
        "code": "E0301", "severity": "error", "message": "m", "help": ["h"],
        "labels": [{
            "file": "lenet5.nn", "line": 6, "column": 9, "end_line": 6, "end_column": 11, "start": 13, "end": 15,
            "text": "t",
        }],
    }  # fmt: skip


@settings(max_examples=200)
@given(st.data())
def test_every_span_can_be_shown(data: st.DataObject) -> None:
    text = data.draw(st.text("ab \t\n漢\u0301", max_size=40))
    source = Source("a.nn", text)
    offsets = st.integers(0, len(text))
    labels = []
    for _ in range(data.draw(st.integers(1, 5))):
        start, end = sorted((data.draw(offsets), data.draw(offsets)))
        labels.append(Label(Span(source, start, end), data.draw(st.sampled_from(["", "text", "longer text"]))))
    found = Diagnostic("E0101", "m", tuple(labels))
    shown = render_diagnostic(found, columns=data.draw(st.sampled_from([None, 20, 80])))
    assert all(not label.text or label.text in shown for label in labels)
    assert "^" in shown


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_shows_what_fits(columns: int) -> None:
    """Texts are broken between words, and a line is shown around its place; what is said is the same."""
    text = "model M(x: f32[B, 3]) -> f32[B, 4] { return x |> Dense(4) |> relu |> Dense(4, biass = false) |> softmax }\n"
    source = Source("a/path/file.nn", text)
    place = text.index("biass")
    facts = (Label(Span(source, place, place + 5), "no layer of this library has a parameter of such a name"),)
    found = Diagnostic("E0203", "there is no such parameter, " * 4, facts, ("write what there is, " * 4,))
    whole, narrow = render_diagnostic(found), render_diagnostic(found, columns=columns)
    assert max(map(len, narrow.splitlines())) <= columns < max(map(len, whole.splitlines()))
    assert "biass = false" in narrow and "..." in narrow
    marks = [line for line in narrow.splitlines() if "^^^^^" in line]
    (line,) = (line for line in narrow.splitlines() if "biass" in line)
    assert [m.index("^^^^^") for m in marks] == [line.index("biass")]
    assert " ".join(narrow.split()).count("such parameter,") == 4
