"""What parses of a text that does not."""

import pytest

from nnc.dsl import ast
from nnc.dsl.errors import SourceError
from nnc.dsl.parser import parse
from nnc.dsl.recovery import recover
from nnc.dsl.source import Source
from nnc.dsl.tree import walk

from ..fuzz.mutants import mutant

TEXT = """# a comment
hyper width: int = 3

model Net(x: f32[B, 4]) -> (y: f32[B, 2]) {
    h = x |> Dense(width)
    when training {
        h = h |> relu
    }
    y = h
}

train Net(x, label: i32[B]) {
    loss = mean(cross_entropy(y, label))
    optimizer = SGD(lr = 0.1)
}

fn last(x: f32[B]) -> f32[B] = x
"""


def told(text: str) -> list[tuple[str, int]]:
    return [(d.code, d.span.position[0]) for d in recover(Source("a.nn", text))[1] if d.span is not None]


def test_what_is_right_is_the_same():
    source = Source("a.nn", TEXT)
    assert recover(source) == (parse(source), [])


@pytest.mark.parametrize(
    ("old", "new", "error", "set_aside"),
    [
        ("Dense(width)", "Dense(width", ("E0103", 5), "x |> Dense(width"),
        ("h = x |>", "h x |>", ("E0101", 5), "h x |> Dense(width)"),
        ("y = h\n", "y = h +\n", ("E0101", 9), "h +"),
        ("y = h\n", "y = $\n", ("E0102", 9), "$"),
        ("int = 3", "int = 3 4", ("E0101", 2), "3 4"),
        ("hyper width: int", "hyper width int", ("E0101", 2), "hyper width int = 3"),
        ("SGD(lr = 0.1)", "SGD(lr = = 0.1)", ("E0101", 14), "SGD(lr = = 0.1)"),
        ("(x, label: i32[B])", "(x, label: i32[B]", ("E0103", 12), "(x, label: i32[B]"),
        ("-> (y: f32[B, 2])", "(y: f32[B, 2])", ("E0101", 4), "(x: f32[B, 4]) (y: f32[B, 2])"),
    ],
)
def test_the_least_around_a_mistake_is_set_aside(old, new, error, set_aside):
    module, found = recover(Source("a.nn", TEXT.replace(old, new, 1)))
    assert [(d.code, d.span.position[0]) for d in found] == [error]
    unread = [n for n in walk(module) if isinstance(n, ast.Unread)]
    assert any(set_aside in n.span.text for n in unread) and len(unread) == 1
    assert len(module.definitions) == 4
    assert sum(isinstance(d, ast.Unread) for d in module.definitions) <= 1


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("model Net", "modle Net", ("E0113", 4)),
        ("(y: f32[B, 2]) {", "(y: f32[B, 2])", ("E0101", 4)),
        ("    y = h\n}", "    y = h\n", ("E0103", 4)),
        ("relu\n    }", "relu\n", ("E0103", 4)),
        ("    y = h\n}", "    y = h\n}\n}", ("E0103", 11)),
        ("when training {", "when training", ("E0101", 6)),
    ],
)
def test_a_brace_or_a_keyword_is_read_as_it_is_meant(old, new, error):
    module, found = recover(Source("a.nn", TEXT.replace(old, new, 1)))
    assert [(d.code, d.span.position[0]) for d in found] == [error]
    assert module == parse(Source("a.nn", TEXT))


def test_a_type_that_is_none_leaves_its_parameter():
    module, _ = recover(Source("a.nn", TEXT.replace("x: f32[B, 4]", "x: f23[B, 4]")))
    (model,) = (d for d in module.definitions if isinstance(d, ast.Layer))
    assert [p.name for p in model.parameters] == ["x"] and model.parameters[0].type.base == ""


def test_mistakes_side_by_side_are_two():
    assert told(TEXT.replace("h = x |>", "h x |>").replace("relu", "relu(").replace("y = h\n", "y h\n")) == [
        ("E0101", 5), ("E0103", 7), ("E0101", 9),
    ]  # fmt: skip


def test_the_first_error_of_any_text_is_among_them():
    for k in range(200):
        source = Source("a.nn", mutant(3, k)[1])
        _, found = recover(source)
        try:
            parse(source)
            assert not found
        except SourceError as e:
            assert (e.code, e.span) in [(d.code, d.span) for d in found]
