"""The parser: strict grammar, exact spans, limits, the cache of its tables, and files that are no source."""

from __future__ import annotations

import copy
import pickle
import re
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnc.dsl import ast, tables
from nnc.dsl.errors import DataError, NncError, SourceError
from nnc.dsl.format import format
from nnc.dsl.parser import MAX_BYTES, by_name, deepest, parse, read_source
from nnc.dsl.source import Source
from nnc.dsl.tokens import MAX_DEPTH, MAX_TOKENS, OPERATORS, tokenize

ROOT = Path(__file__).resolve().parents[2]


def body(text: str) -> ast.Expr:
    """The expression of `const a = ...`."""
    (definition,) = parse(Source("test.nn", f"const a = {text}")).definitions
    assert isinstance(definition, ast.Const)
    return definition.value


def errors(text: str) -> list[tuple[str, int]]:
    with pytest.raises(SourceError) as caught:
        parse(Source("test.nn", text))
    return [(d.code, d.span.position[0]) for d in caught.value.diagnostics if d.span]


# --- the grammar


def test_the_grammar_is_strict() -> None:
    """No shift/reduce and no reduce/reduce conflict: Lark refuses them when strict."""
    assert tables.build_tables().options.strict


def test_tokens_and_grammar_agree() -> None:
    grammar = {t.name: t.pattern.value for t in tables.build_tables().terminals}
    assert {name: sign for name, sign in grammar.items() if not sign.isalpha()} == {v: k for k, v in OPERATORS.items()}


def test_spans_are_exact() -> None:
    e = body("f(x + 1) |> g.h")
    assert isinstance(e, ast.Pipe) and isinstance(e.value, ast.Call)
    assert e.span.text == "f(x + 1) |> g.h" and e.target.span.text == "g.h"
    sum_ = e.value.arguments[0].value
    assert isinstance(sum_, ast.Binary) and sum_.span.text == "x + 1" and sum_.op_span.text == "+"
    grouped = body("(a + b)[0]")
    assert isinstance(grouped, ast.Index) and grouped.base.span.text == "(a + b)" and grouped.span.text == "(a + b)[0]"


def test_every_span_holds_those_of_its_children() -> None:
    for path in sorted((ROOT / "dsl" / "std").glob("*.nn")):
        todo: list[ast.Tree] = [parse(read_source(path))]
        while todo:
            node = todo.pop()
            for name in node.__match_args__:
                value = getattr(node, name)
                for child in value if isinstance(value, tuple) else (value,):
                    if isinstance(child, ast.Tree):
                        assert node.span.start <= child.span.start < child.span.end <= node.span.end
                        todo.append(child)


def test_line_ends_do_not_matter() -> None:
    text = "fn f(x) {\n\ty = x\n    |> g\n    return y\n}\n"
    tree = parse(Source("", text))
    assert tree == parse(Source("", text.replace("\n", "\r\n"))) == parse(Source("", "\ufeff" + text))


def test_several_errors_are_told_at_once() -> None:
    assert errors("const a = )\nfn f(x) = x\nconst b = ]\nfn g(x) {\nconst c = 1 < 2 < 3\n") == [
        ("E0103", 1), ("E0103", 3), ("E0103", 4), ("E0106", 5),
    ]  # fmt: skip


def test_a_definition_with_a_misspelt_sign_is_told_of_once() -> None:
    assert errors("const a = $ $ )\n") == [("E0102", 1), ("E0102", 1), ("E0103", 1)]
    assert errors("const a = 3 $ 4 4 4\n") == [("E0102", 1)]


@settings(max_examples=300)
@given(st.lists(st.sampled_from([
    *OPERATORS, "\n", "\n", " ", "fn f(x) ", "layer L(x) {", "train M(x) {", 'test "a" {', "x", "sum", "1", "0.5",
    '"s"', '"', "if ", "then ", "else ", "not ", "and ", "weight w", "metric m", "when training ", "repeat ",
    "scan t in ", "return ", "until ", "in ", "# c", "$", "case ", "const a = ", "import ", "from ", "\t", "²", "1.",
]), max_size=25).map("".join))  # fmt: skip
def test_any_text_gives_a_tree_or_diagnostics(text: str) -> None:
    try:
        parse(Source("random.nn", text))
    except SourceError as e:
        assert str(e) and all(re.fullmatch("E01[0-9]{2}", d.code) and d.span for d in e.diagnostics)


# --- limits


DEEP = {
    "brackets": "const a = " + "(" * 500 + "1" + ")" * 500,
    "ifs": "fn f(x) {" + "if x {" * 500 + "}" * 500 + "}",
    "powers": "const a = " + "a^" * 500 + "a",
    "minus": "const a = " + "-" * 500 + "a",
    "not": "const a = " + "not " * 500 + "a",
    "calls": "const a = " + "f(" * 500 + "a" + ")" * 500,
}


FLAT = {
    "sum": "const a = a" + " + a" * 5000,
    "products_and_sums": "const a = a" + " * a - a" * 2000,
    "pipes": "const a = x" + " |> f" * 5000,
    "attributes": "const a = a" + ".b" * 5000,
    "indices_and_calls": "const a = a" + "[0](b).c" * 2000,
    "a_size": "fn f(x: f32[n" + " + 1" * 5000 + "]) = x",
    "an_index": "const a = b[" + "2*i - " * 5000 + "1]",
    "else_ifs": "fn f(x) {\n    if x { }" + " else if x { }" * 1000 + "\n}",
    "if_expressions": "const a = " + "if a then b else " * 1000 + "c",
}


@pytest.mark.parametrize("name", FLAT)
def test_a_chain_is_flat(name: str) -> None:
    source = Source("flat.nn", FLAT[name])
    tree = parse(source)
    assert deepest(tree.definitions[0]) is None
    again = format(tree, source)
    assert again.split() == format(parse(Source("again.nn", again)), Source("again.nn", again)).split()


@pytest.mark.parametrize("name", DEEP)
def test_nesting_has_a_limit(name: str) -> None:
    assert errors(DEEP[name])[0][0] == "E0110"


@pytest.mark.parametrize(
    "pattern", ["{} + 1", "f({})", "-{}", "({}, 2)", "{} |> f", "a^{}", "{}.b", "{}[1]", "sum[i]({})"]
)
def test_trees_up_to_the_limit_can_be_walked(pattern: str) -> None:
    """What is printed at the limit reads back as it was; equality, hashes and `repr` take more of Python's stack."""
    low, high = 1, 2 * MAX_DEPTH
    while low < high:  # the deepest that is accepted
        middle = (low + high + 1) // 2
        try:
            parse(_nested(pattern, middle))
            low = middle
        except SourceError:
            high = middle - 1
    assert low >= MAX_DEPTH - 2
    source = _nested(pattern, low)
    printed = format(parse(source), source)
    assert format(parse(Source("again.nn", printed)), Source("again.nn", printed)) == printed
    tree, again = parse(_nested(pattern, MAX_DEPTH // 2)), parse(_nested(pattern, MAX_DEPTH // 2))
    assert tree == again and hash(tree) == hash(again) and len(repr(tree)) > MAX_DEPTH // 2


def _nested(pattern: str, times: int) -> Source:
    head, tail = pattern.split("{}")
    return Source("deep.nn", "const a = " + head * times + "x" + tail * times)


LARGE = {
    "a_name": "x" * 1_000_000,
    "comments": "# c\n" * 250_000,
    "newlines": "\n" * 1_000_000,
    "braces": "{}" * 500_000,
    "open": "(" * 1_000_000,
    "closed": ")" * 1_000_000,
    "junk": "$" * 1_000_000,
    "quotes": '"\n' * 500_000,
    "digits": "const a = " + "1" * 1_000_000,
    "number": "const a = 1" + "x." * 500_000,
    "backslashes": 'const a = "' + "\\" * 999_999,
    "escapes": 'const a = "' + "\\q" * 400_000 + '"',
    "sum": "const a = " + "a+" * 500_000 + "a",
    "constants": "const a = 1\n" * 90_000,
    "definitions": "fn f(x) {\n" * 100_000,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_megabyte_is_answered_in_time(name: str) -> None:
    source = Source("large.nn", LARGE[name])
    started = time.process_time()
    try:
        parse(source)
    except SourceError as e:
        assert len(str(e)) < 100_000
    assert time.process_time() - started < 5  # 0.5 s on an idle machine


def test_too_many_words_are_refused() -> None:
    assert errors("const a = [" + "1, " * MAX_TOKENS + "]")[0][0] == "E0111"
    assert len(tokenize(Source("", "# many\n" * MAX_TOKENS)).diagnostics) == 0


def test_ordinary_files_parse_fast() -> None:
    text = "".join(read_source(p).text for p in sorted((ROOT / "dsl" / "std").glob("*.nn")))
    source = Source("std.nn", text)
    parse(source)
    best = min(_seconds(source) for _ in range(3))
    assert best < 0.015 * (len(text) / 1000), f"{best:.3f} s for {len(text)} characters"


def _seconds(source: Source) -> float:
    started = time.process_time()
    parse(source)
    return time.process_time() - started


def test_trees_and_errors_travel() -> None:
    tree = parse(Source("a.nn", "const a = 1"))
    assert copy.copy(tree) == tree and pickle.loads(pickle.dumps(tree)) == tree
    with ThreadPoolExecutor(4) as pool:
        assert all(t == tree for t in pool.map(parse, [Source("a.nn", "const a = 1")] * 20))


# --- the cache of the tables


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, and no tables in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tables.load_tables.cache_clear()
    yield tmp_path / "nnc" / "grammar"
    tables.load_tables.cache_clear()


def _parses() -> bool:
    tables.load_tables.cache_clear()
    return len(parse(Source("", "const a = 1")).definitions) == 1


def test_tables_are_kept_and_private(fresh: Path) -> None:
    assert _parses()
    (kept,) = fresh.iterdir()
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    before = kept.stat().st_mtime_ns
    assert _parses() and kept.stat().st_mtime_ns == before


def test_tables_can_be_made_in_another_process(fresh: Path) -> None:
    """Several processes begin at once: the tables are whole, and who needs them waits for them."""
    begin = "from nnc.dsl import tables; tables.begin_tables(); tables.load_tables()"
    others = [subprocess.Popen([sys.executable, "-c", begin]) for _ in range(3)]
    assert [other.wait() for other in others] == [0, 0, 0]
    (kept,) = fresh.iterdir()
    before = kept.stat().st_mtime_ns
    assert _parses() and kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_damaged_tables_are_made_again(fresh: Path, damage: bytes | None) -> None:
    assert _parses()
    (kept,) = fresh.iterdir()
    data = kept.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    kept.write_bytes(flipped if damage is None else damage)
    assert _parses()
    assert kept.read_bytes() == data or len(list(fresh.iterdir())) == 2


def test_without_a_cache_it_works(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert _parses()
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh.parent.parent))
    fresh.mkdir(parents=True)
    fresh.chmod(0o777)
    assert _parses() and not list(fresh.iterdir()), "a directory that others can write is not trusted"


# --- files


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"\xff\xfe", "E0682"), (b"const a = \xc3(", "E0682"), (b"const a\0", "E0682"), (b"#" * (MAX_BYTES + 1), "E0683")],
)
def test_files_that_are_no_source(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "a.nn"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_source(path)
    assert caught.value.code == code and str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "model.nn").write_text("")
    for name in ("modle.nn", ".", "no/such/folder.nn", "a\0b"):
        with pytest.raises(DataError) as caught:
            read_source(tmp_path / name)
        assert caught.value.code == "E0681" and isinstance(caught.value, OSError | NncError)
        assert ("model.nn" in str(caught.value)) == (name == "modle.nn")


def test_line_ends_and_byte_order_marks_of_files(tmp_path: Path) -> None:
    path = tmp_path / "a.nn"
    path.write_bytes(b"\xef\xbb\xbfconst a = 1\r\nconst b = 2\rconst c = 3")
    assert read_source(path).text == "const a = 1\nconst b = 2\nconst c = 3"


def test_only_programs_are_imported(tmp_path: Path) -> None:
    """Or whoever sees the diagnostics of a program sees any file that its compiler may read."""
    (tmp_path / "secret").write_text("root:x:0:0\n")
    (tmp_path / "link.nn").symlink_to("secret")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "good.nn").write_text("const a = 1")
    (tmp_path / "good.nn").symlink_to("below/good.nn")
    for name in ("secret", "link.nn", "below/../secret"):
        with pytest.raises(DataError, match=r"E0681.*only files whose names end in .nn are imported") as caught:
            read_source(tmp_path / name, imported=True)
        assert "x:0:0" not in str(caught.value)
    for name in ("a\0b.nn", "a\ud800.nn"):
        with pytest.raises(DataError, match="E0681"):
            read_source(name, imported=True)
    assert read_source(tmp_path / "good.nn", imported=True).text == "const a = 1"


def test_a_definition_by_its_name_is_that_of_the_whole_file():
    for path in sorted((ROOT / "dsl" / "std").glob("*.nn")):
        source = Source(path.name, path.read_text("utf-8"))
        whole = {d.name: d for d in parse(source).definitions}
        alone = {name: made() for name, made in by_name(source).items()}
        assert alone == whole and {n: d.span for n, d in alone.items()} == {n: d.span for n, d in whole.items()}


def test_what_stands_beside_a_definition_is_not_parsed():
    found = by_name(Source("<text>", "# one\nfn one() = 1\nfn two() = = 2\n"))
    assert found["one"]().doc == "one"
    with pytest.raises(SourceError):
        found["two"]()
    with pytest.raises(SourceError):
        by_name(Source("<text>", "fn one() = 1 $\n"))
