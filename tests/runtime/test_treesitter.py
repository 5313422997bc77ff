"""The tree-sitter grammar: made from ours, LR(1), and it reads all models and the library as our parser does.

Its generator is a program of its own, which is run where it is at hand (`tree-sitter`, of npm's tree-sitter-cli). The
other tests stand in for it: node reads `grammar.js`, Lark makes the tables (and refuses a conflict), the scanner is
compiled and asked what the tables say can stand at a place."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lark
import pytest
from lark.parsers.lalr_analysis import Shift

from nnc.dsl import ast
from nnc.dsl.parser import parse
from nnc.dsl.source import Source
from nnc.dsl.tables import Fed
from nnc.dsl.tree import walk
from nnc.runtime.editor import treesitter

ROOT = Path(__file__).parents[2]
STD = ("attention", "convolution", "optimizers", "recurrent", "resizing")
FILES = sorted([*(ROOT / "models").glob("*.nn"), *(ROOT / "dsl" / "std" / f"{name}.nn" for name in STD)])
HEADER = """
#include <stdbool.h>
#include <stdint.h>
typedef uint16_t TSSymbol;
typedef struct TSLexer TSLexer;
struct TSLexer {
  int32_t lookahead;
  TSSymbol result_symbol;
  void (*advance)(TSLexer *, bool);
  void (*mark_end)(TSLexer *);
  uint32_t (*get_column)(TSLexer *);
  bool (*is_at_included_range_start)(const TSLexer *);
  bool (*eof)(const TSLexer *);
};
"""
TEXTS = """
fn f(x) {
    state = 3
    weight = state + 1
    repeat = [1]
    y = repeat[0] + state
    return y
}
---
layer L(x: f32[B]) -> f32[B] {
    state state: f32 = 0
    repeat 3 { x = x + 1 }
    repeat k in 0..2 { }
    when training { x = 2 * x } else { x = x }
    scan t in 0..3 until t > 1 { s = s }
    return x
}
---
fn f(sum, x) = sum[0, 1] + sum[i](x[i]) + sum(x) + sum
---
fn f(x) {
    y = x  # behind
    # alone

        |> g  # a stage
        |> h: k(
        1,
    )
    z = (y
        + 1)
    return z.training.when }
---
test "a" {
    case = 1
    case f(1) => 2 within 0.1
    expect (a) == 1
    reject "x" f(1)
    gradcheck M
}
---
train M(x) {
    update {
        w := w + 1
    }
    stop when (a) > 1
    minimize d = a over b with c, e with f
}
---
fn f(λ: f32[*s, 2]) -> (a: int, b: f32) = λ[0:1, ::2, i]
""".split("---\n")  # where words are keywords, and where they are names


class _Lexer(ctypes.Structure):
    pass


_ADVANCE = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Lexer), ctypes.c_bool)
_MARK = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Lexer))
_COLUMN = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.POINTER(_Lexer))
_ASKED = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(_Lexer))
_Lexer._fields_ = [
    ("lookahead", ctypes.c_int32), ("result_symbol", ctypes.c_uint16), ("advance", _ADVANCE), ("mark_end", _MARK),
    ("get_column", _COLUMN), ("is_at_included_range_start", _ASKED), ("eof", _ASKED),
]  # fmt: skip


class Scanner:
    """The compiled scanner on a text."""

    def __init__(self, library: ctypes.CDLL, count: int):
        self._scan = library.tree_sitter_nn_external_scanner_scan
        self._scan.restype = ctypes.c_bool
        self._count = count

    def scan(self, text: str, at: int, valid: set[int]) -> tuple[int, int, int] | None:
        """What stands at an offset, of the symbols that can: which, from where, to where."""
        state = {"at": at, "start": at, "end": None}
        lexer = _Lexer(lookahead=ord(text[at]) if at < len(text) else 0)

        def advance(_: Any, skip: bool) -> None:
            state["at"] += state["at"] < len(text)
            if skip:
                state["start"] = state["at"]
            lexer.lookahead = ord(text[state["at"]]) if state["at"] < len(text) else 0

        def mark(_: Any) -> None:
            state["end"] = state["at"]

        lexer.advance, lexer.mark_end = _ADVANCE(advance), _MARK(mark)
        lexer.eof = _ASKED(lambda _: state["at"] >= len(text))
        flags = (ctypes.c_bool * self._count)(*(k in valid for k in range(self._count)))
        if not self._scan(None, ctypes.byref(lexer), flags):
            return None
        return lexer.result_symbol, state["start"], state["end"]


class Parser:
    """What tree-sitter would be, of `grammar.js` and the scanner."""

    def __init__(self, grammar: dict[str, Any], library: ctypes.CDLL):
        self.externals: list[str] = grammar["externals"]
        self.scanner = Scanner(library, len(self.externals))
        self.word = re.compile(r"[^\W\d]\w*")
        rules = grammar["rules"]
        self.patterns = {
            n: re.compile(r["value"]) for n, r in rules.items() if r["type"] == "PATTERN" and n != "identifier"
        }
        self.literals: dict[str, str] = {}
        self.shown: dict[str, str] = {}
        body = {n: self._text(r) for n, r in rules.items() if r["type"] != "PATTERN"}
        for hidden, visible in self.shown.items():
            body[f"{visible}__{hidden}"] = body.pop(hidden)
        lines = [f"{n}: {b}" for n, b in body.items()]
        for hidden, visible in self.shown.items():
            lines = [re.sub(rf"\b{hidden}\b(?!:)", f"{visible}__{hidden}", x) for x in lines]
        terminals = [*self.literals.values(), *(_terminal(n) for n in (*self.externals, *self.patterns, "identifier"))]
        text = "\n".join([*lines, f"%declare {' '.join(dict.fromkeys(terminals))}"])
        self.lark = lark.Lark(text, parser="lalr", lexer=Fed, start="source_file", keep_all_tokens=True)

    def _text(self, r: dict[str, Any]) -> str:
        """A rule as Lark writes it."""
        match r["type"]:
            case "SEQ":
                return f"({' '.join(map(self._text, r['members']))})"
            case "CHOICE":
                return f"({' | '.join(map(self._text, r['members']))})"
            case "REPEAT":
                return f"({self._text(r['content'])})*"
            case "BLANK":
                return ""
            case "STRING":
                return self.literals.setdefault(r["value"], f"L{len(self.literals)}_")
            case "SYMBOL":
                name = r["name"]
                return _terminal(name) if name in (*self.externals, *self.patterns, "identifier") else str(name)
            case "ALIAS":
                hidden, value = r["content"]["name"], r["value"]
                if value["type"] == "SYMBOL" and hidden not in self.externals:
                    self.shown[hidden] = value["name"]
                return self._text(r["content"])
        raise AssertionError(r)

    def parse(self, text: str) -> Counter[str]:
        """How many nodes of each kind the tree of a text has; raises AssertionError where it has none."""
        at = 0
        state = self.lark.parse_interactive("").parser_state
        while True:
            token = self.token(text, at, state)
            if token is None:
                break
            kind, _, at = token
            state.feed_token(lark.Token(kind, text[token[1] : at]))
        tree = state.feed_token(lark.Token("$END", ""), True)
        return Counter(t.data.split("__")[0] for t in tree.iter_subtrees())

    def token(self, text: str, at: int, state: Any) -> tuple[str, int, int] | None:
        """The next token where the parser is in a state: the scanner is asked first."""
        table = state.parse_conf.parse_table.states
        while True:
            valid = {k for k, n in enumerate(self.externals) if _fits(state.state_stack, _terminal(n), table)}
            found = self.scanner.scan(text, at, valid)
            if found is not None:
                return _terminal(self.externals[found[0]]), found[1], found[2]
            after = re.compile(r"[ \t\r\f\n]*(#[^\n]*)?").match(text, at).end()  # type: ignore[union-attr]
            if after == at:
                break
            at = after
        if at == len(text):
            return None
        candidates = []
        if word := self.word.match(text, at):
            reserved = self.literals.get(word[0])
            fits = reserved is not None and _fits(state.state_stack, reserved, table)
            candidates.append((word.end(), reserved if fits else "IDENTIFIER"))
        candidates += [(m.end(), _terminal(n)) for n, p in self.patterns.items() if (m := p.match(text, at))]
        candidates += [(at + len(s), t) for s, t in self.literals.items() if not s.isalpha() and text.startswith(s, at)]
        fitting = [(end, t) for end, t in candidates if _fits(state.state_stack, t, table)]
        assert fitting, f"nothing fits at {text[at : at + 30]!r}"
        end, kind = max(fitting)
        return str(kind), at, end


def _terminal(name: str) -> str:
    return f"{name.strip('_').upper()}" if not name.startswith("_") else f"X{name.upper()}"


def _fits(stack: list[int], terminal: str, table: Any) -> bool:
    """Whether a terminal can stand where a stack of LALR states is: what LR(1) tables say."""
    stack = [*stack]
    while (action := table[stack[-1]].get(terminal)) is not None:
        kind, argument = action
        if kind is Shift:
            return True
        if argument.expansion:
            del stack[-len(argument.expansion) :]
        stack.append(table[stack[-1]][argument.origin.name][1])
    return False


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> Parser:
    if shutil.which("node") is None or shutil.which("cc") is None:
        pytest.skip("no node or no C compiler here")
    folder = tmp_path_factory.mktemp("scanner")
    (folder / "tree_sitter").mkdir()
    (folder / "tree_sitter" / "parser.h").write_text(HEADER)
    source, library = treesitter.FOLDER / "src" / "scanner.c", folder / "scanner.so"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{folder}"]
    subprocess.run(["cc", *flags, str(source), "-o", str(library)], check=True)
    js = ["node", str(Path(__file__).with_name("treesitter.mjs")), str(treesitter.FOLDER / "grammar.js")]
    grammar = json.loads(subprocess.run(js, check=True, capture_output=True, text=True).stdout)
    return Parser(grammar, ctypes.CDLL(str(library)))


def test_the_grammar_is_made_from_ours(request: pytest.FixtureRequest) -> None:
    for path, text in treesitter.files().items():
        if request.config.getoption("--update-golden"):
            path.write_text(text, "utf-8")
        assert path.read_text("utf-8") == text


KINDS = {
    ast.Call: "call", ast.Index: "index", ast.Attribute: "attribute", ast.Binary: "binary", ast.Unary: "unary",
    ast.Comprehension: "comprehension", ast.IfExpr: "if_expr", ast.List: "list_of", ast.Scan: "scan",
    ast.If: "if_statement", ast.Parameter: "parameter", ast.Variable: "variable", ast.Update: "update",
    ast.Function: "function",
    ast.Assign: "assign", ast.Return: "return_value", ast.Case: "case", ast.Metric: "metric",
}  # fmt: skip


def _kinds(text: str) -> Iterator[str]:
    for node in walk(parse(Source("a.nn", text))):
        if type(node) in KINDS:
            yield KINDS[type(node)]
        elif isinstance(node, ast.Pipe):
            yield "pipe" if node.label is None else "labelled_pipe"
        elif isinstance(node, ast.Target) and node.indices is not None:
            yield "index"
        elif isinstance(node, ast.Layer):
            yield "model" if node.top else "layer"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_it_reads_what_our_parser_reads(parser: Parser, path: Path) -> None:
    _compare(parser, path.read_text("utf-8"))


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_keywords_where_they_stand_like_one(parser: Parser, text: str) -> None:
    _compare(parser, text)


def _compare(parser: Parser, text: str) -> None:
    wanted, found = Counter(_kinds(text)), parser.parse(text)
    assert {k: found[k] for k in wanted} == dict(wanted)
    assert set(found) & {*KINDS.values(), "pipe", "labelled_pipe", "model", "layer"} <= set(wanted)


def test_what_is_asked_for_to_highlight_is_in_the_grammar() -> None:
    grammar = (treesitter.FOLDER / "grammar.js").read_text("utf-8")
    query = (treesitter.FOLDER / "queries" / "highlights.scm").read_text("utf-8")
    query = re.sub(r"@[\w.]+", "", query)
    names = set(re.findall(r"\((\w+)", query))
    assert names and all(f"    {n}:" in grammar or f"$.{n})" in grammar for n in names)
    assert all(f'"{s}"' in grammar for s in re.findall(r'"([^"]+)"', query))


def test_the_generator_takes_it(tmp_path: Path) -> None:
    if shutil.which("tree-sitter") is None:
        pytest.skip("no tree-sitter here: npm install -g tree-sitter-cli")
    folder = tmp_path / "tree_sitter"
    shutil.copytree(treesitter.FOLDER, folder)
    subprocess.run(["tree-sitter", "generate"], check=True, cwd=folder)
    subprocess.run(["tree-sitter", "parse", "--quiet", *map(str, FILES)], check=True, cwd=folder)
    subprocess.run(["tree-sitter", "query", "queries/highlights.scm", str(FILES[0])], check=True, cwd=folder)
