"""The formatter: printing then parsing gives the same tree, printing again changes nothing, no comment is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnc.dsl import ast
from nnc.dsl.errors import SourceError
from nnc.dsl.format import format
from nnc.dsl.layout import WIDTH
from nnc.dsl.parser import parse, read_source
from nnc.dsl.source import Source, Span
from nnc.dsl.tokens import RESERVED

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "dsl" / "std").glob("*.nn"), *(ROOT / "models").glob("*.nn")])

# --- random trees

NOWHERE = Source("<none>", "")
AT = Span(NOWHERE, 0, 0)


def node(kind, *parts):
    """A strategy for nodes without a place."""
    return st.builds(lambda *values: kind(*values, span=AT), *parts)


def tuples(strategy, least=0, most=3):
    return st.lists(strategy, min_size=least, max_size=most).map(tuple)


# Soft keywords are as good a name as any other.
NAMES = st.sampled_from(
    "x y data batch loss weight bias state model layer optimizer train test metric update repeat scan until within "
    "when stop case expect reject sum mean max share training import from fn hyper const export gradcheck α h_1".split()
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r", exclude_categories=("Cs",)), max_size=8)
FLOATS = st.floats(min_value=0, allow_nan=False, allow_infinity=False)


def expressions():
    leaves = st.one_of(
        node(ast.Name, NAMES), node(ast.Int, st.integers(0, 2**63)), node(ast.Float, FLOATS),
        node(ast.Bool, st.booleans()), node(ast.Str, TEXTS),
    )  # fmt: skip

    def extend(e):
        argument = node(ast.Argument, st.none(), e)
        named = node(ast.Argument, NAMES, e)
        arguments = st.builds(lambda a, b: (*a, *b), tuples(argument, most=2), tuples(named, most=2))
        part = st.none() | e
        item = e | node(ast.Rest, NAMES) | node(ast.Slice, part, part, part)
        interval = node(ast.Range, e, e)
        binder = node(ast.Binder, NAMES, st.just(False), st.none() | interval) | node(
            ast.Binder, NAMES, st.just(True), st.none()
        )
        call = node(ast.Call, e, arguments)
        target = call | node(ast.Name, NAMES) | node(ast.Attribute, e, NAMES)
        operators = "+ - * / // % @ ^ == != < <= > >= and or".split()
        return st.one_of(
            node(ast.List, tuples(e)), node(ast.Tuple, tuples(e, 1)), node(ast.Unary, st.sampled_from(["-", "not"]), e),
            st.builds(lambda op, a, b: ast.Binary(op, a, b, AT, span=AT), st.sampled_from(operators), e, e), interval,
            node(ast.IfExpr, e, e, e), call, node(ast.Pipe, e, target, st.none() | NAMES),
            node(ast.Attribute, e, NAMES), node(ast.Index, e, tuples(item, 1)),
            node(ast.Comprehension, st.sampled_from(["sum", "mean", "prod", "max", "min"]), tuples(binder, 1), e),
        )  # fmt: skip

    return st.recursive(leaves, extend, max_leaves=12)


EXPR = expressions()
DTYPES = st.sampled_from(["f32", "f64", "i32", "i64", "bool"])
TENSORS = node(ast.Type, DTYPES, tuples(EXPR | node(ast.Rest, NAMES)))
TYPES = TENSORS | node(ast.Type, st.sampled_from(["int", "float", "bool", "str", "fn"]), st.none())
OPTIONAL_TYPE, OPTIONAL = st.none() | TYPES, st.none() | EXPR
RANGED = node(ast.Binder, NAMES, st.just(False), node(ast.Range, EXPR, EXPR))
TARGETS = node(ast.Target, NAMES, st.none() | tuples(EXPR | node(ast.Rest, NAMES) | RANGED, 1))
ASSIGN = node(ast.Assign, tuples(TARGETS, 1), EXPR)
ROLES = st.sampled_from(["weight", "bias", "state"])
NAME = node(ast.Name, NAMES)
VARIABLES = NAME | node(ast.Attribute, NAME, NAMES) | node(ast.Call, NAME, tuples(node(ast.Argument, st.none(), EXPR)))
MINIMIZE = st.builds(
    lambda name, e, over: ast.Minimize(name, e, *zip(*over, strict=True), span=AT),
    NAMES, EXPR, st.lists(st.tuples(EXPR, EXPR), min_size=1, max_size=3),
)  # fmt: skip


def statements():
    simple = st.one_of(
        ASSIGN, node(ast.Update, VARIABLES, EXPR), node(ast.Variable, ROLES, NAMES, OPTIONAL_TYPE, EXPR, st.booleans()),
        node(ast.Share, NAMES, EXPR), node(ast.Return, EXPR), node(ast.Evaluate, EXPR),
    )  # fmt: skip

    def extend(s):
        body = tuples(s, most=2)
        return st.one_of(
            node(ast.If, EXPR, body, body), node(ast.When, body, body),
            node(ast.Repeat, st.none() | NAMES, EXPR, body), node(ast.Scan, NAMES, EXPR, OPTIONAL, body),
        )  # fmt: skip

    return st.recursive(simple, extend, max_leaves=6)


BODY = tuples(statements())
PARAMETERS = tuples(node(ast.Parameter, NAMES, OPTIONAL_TYPE, OPTIONAL))
RESULTS = st.one_of(
    st.just(()), node(ast.Result, st.none(), TYPES).map(lambda r: (r,)), tuples(node(ast.Result, NAMES, TYPES), 1)
)
TRAIN_ITEM = st.one_of(
    ASSIGN, node(ast.Metric, NAMES, EXPR), node(ast.StopWhen, EXPR), node(ast.UpdateRule, BODY),
    MINIMIZE, node(ast.Update, VARIABLES, EXPR),
)  # fmt: skip
TEST_ITEM = st.one_of(
    ASSIGN, node(ast.Case, EXPR, EXPR, OPTIONAL), node(ast.Expect, EXPR, OPTIONAL), node(ast.GradCheck, NAMES),
    node(ast.Reject, TEXTS, EXPR),
)  # fmt: skip
DEFINITIONS = st.one_of(
    node(ast.Import, TEXTS, st.none() | tuples(NAMES, 1)), node(ast.Const, NAMES, OPTIONAL_TYPE, EXPR),
    node(ast.Hyper, NAMES, TYPES, EXPR, OPTIONAL), node(ast.Function, NAMES, PARAMETERS, RESULTS, EXPR | BODY),
    node(ast.Layer, NAMES, PARAMETERS, RESULTS, BODY, st.booleans()), node(ast.Optimizer, NAMES, PARAMETERS, BODY),
    node(ast.Train, NAMES, PARAMETERS, tuples(TRAIN_ITEM)), node(ast.Test, TEXTS, tuples(TEST_ITEM)),
    node(ast.Export, NAMES, PARAMETERS, RESULTS, EXPR | BODY),
)  # fmt: skip
MODULES = node(ast.Module, tuples(DEFINITIONS, most=2))


def test_the_names_in_use_are_no_reserved_words() -> None:
    assert not set(RESERVED) & {"data", "batch", "loss", "x", "text", "metric", "weight", "training"}


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(MODULES)
def test_printing_then_parsing_gives_the_tree_back(module: ast.Module) -> None:
    text = format(module, NOWHERE)
    source = Source("<printed>", text)
    again = parse(source)
    assert again == module
    assert format(again, source) == text


# --- sources


def check(text: str) -> str:
    """The canonical text, after checking that it says the same, keeps each comment and is canonical."""
    source = Source("given.nn", text)
    module = parse(source)
    printed = format(module, source)
    source_again = Source("printed.nn", printed)
    again = parse(source_again)
    assert again == module
    assert sorted(c.text for c in again.comments) == sorted(c.text for c in module.comments)
    assert format(again, source_again) == printed
    return printed


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_files_of_the_project(path: Path) -> None:
    given = read_source(path).text
    text = check(given)
    assert text == given, "run `nnc fmt` on it"
    assert all(len(line.partition("#")[0].rstrip()) <= WIDTH for line in text.split("\n"))


@pytest.mark.parametrize("seed", range(6))
def test_comments_and_newlines_anywhere(seed: int) -> None:
    """Wherever a comment or a newline may stand, the formatter keeps the comment and settles at once."""
    chance = random.Random(seed)
    for _ in range(12):
        path = chance.choice(FILES)
        text = read_source(path).text
        tree = parse(Source("", text))
        for k in range(8):
            at = chance.randrange(len(text))
            changed = text[:at] + chance.choice([f" # c{k}\n", f"\n# d{k}\n", f" # e{k}\n\n", "\n\n", "\n"]) + text[at:]
            try:
                same = parse(Source("", changed)) == tree
            except SourceError:
                continue
            text = changed if same else text
        check(text)


def test_a_comment_that_went_elsewhere_breaks_no_line() -> None:
    """It trails the first line of what stands on its own; the arguments it stood among need no lines of theirs."""
    printed = check("fn f(x) {\n    when training { if 1 { x = g( # c\n(x)) } }\n    return x\n}\n")
    assert "when training {  # c\n" in printed and "if 1 { x = g(x) }\n" in printed


def test_deep_trees_are_printed() -> None:
    groups, lists = "(" * 80 + "x" + " + 1) * 2" * 80, "[" * 190 + "]" * 190
    calls, mixed = "f(" * 95 + "x" + ")" * 95, "(" * 90 + "x" + " |> f) + 1" * 90
    for expression in (groups, lists, calls, mixed, " + ".join(["x"] * 199), "x" + " |> f(1)" * 120):
        check(f"fn f(x) = {expression}\n")


def test_large_files_are_printed_in_time() -> None:
    check("const table = [" + ", ".join(["0.5"] * 20_000) + "]\n")
