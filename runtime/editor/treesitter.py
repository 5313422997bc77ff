"""The tree-sitter grammar of `.nn` files, made from `dsl/grammar.lark`: what Neovim, Helix and Zed colour text by.
`python -m nnc.runtime.editor.treesitter` writes it to where `tree-sitter generate` reads it.

A rule becomes a rule; an alternative that the parser calls by a name of its own is a node of that name. Which words are
keywords, and which newlines end a statement, `tokens.py` says; here `src/scanner.c` does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ...dsl.tables import GRAMMAR
from ...dsl.tokens import OPERATORS, RESERVED

FOLDER = Path(__file__).parent / "tree_sitter"
TERMINALS = {
    "NAME": "$.identifier", "INT": "$.int", "FLOAT": "$.float", "STRING": "$.text", "NEWLINE": "$._newline",
    "REDUCTION": "alias($._reduction, $.identifier)",
}  # fmt: skip
_TOKEN = re.compile(r'"[^"]*"|->|[A-Za-z_]+|[()\[\]|*]')

_HEAD = """\
// Made from dsl/grammar.lark by `python -m nnc.runtime.editor.treesitter`; a test holds the two together.

module.exports = grammar({
  name: "nn",
  word: ($) => $.identifier,
  extras: ($) => [/[ \\t\\r\\f\\n]/, $.comment],
  externals: ($) => [
    $._newline, $._reduction,
    %s,
    $._never,
  ],
  rules: {
    source_file: ($) => repeat($._definition),
    comment: ($) => /#[^\\n]*/,
    identifier: ($) => /[\\p{L}_][\\p{L}\\p{N}_]*/,
    int: ($) => /[0-9]+/,
    float: ($) => /[0-9]+(\\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)/,
    text: ($) => /"([^"\\\\\\n]|\\\\[^\\n])*"/,
"""


class _Rules:
    """The rules of tree-sitter, while those of Lark are read."""

    def __init__(self, source: str):
        self.lark = dict(_rules(source))
        names = [a for body in self.lark.values() for _, a in _alternatives(body) if a]
        self.shared = {a for a, n in Counter(names).items() if n > 1 or a in self.lark}
        self.hidden = {
            r for r, body in self.lark.items() if r.startswith("?") or all(a for _, a in _alternatives(body))
        }
        self.named = {r.lstrip("?"): r for r in self.lark}
        self.words: dict[str, None] = {}  # that are keywords only where they stand like one
        self.out: dict[str, str] = {}

    def run(self) -> dict[str, str]:
        for rule, body in self.lark.items():
            choices = [self.alternative(rule, tokens, alias) for tokens, alias in _alternatives(body)]
            name = rule.lstrip("?")
            self.out[f"_{name}" if rule in self.hidden else name] = _choice(choices)
        return self.out

    def alternative(self, rule: str, tokens: list[str], alias: str | None) -> str:
        body = self.sequence(tokens)
        if alias is None:
            return body
        if alias not in self.shared:
            self.out[alias] = body
            return f"$.{alias}"
        part = f"_{rule.lstrip('?')}_{alias}"
        while part in self.out:
            part += "_"
        self.out[part] = body
        return f"alias($.{part}, $.{alias})"

    def sequence(self, tokens: list[str]) -> str:
        items, k = [], 0
        while k < len(tokens):
            if tokens[k] in "([":
                end = _matching(tokens, k)
                inner = _choice([self.sequence(t) for t, _ in _split(tokens[k + 1 : end])])
                many = end + 1 < len(tokens) and tokens[end + 1] == "*"
                items.append(f"optional({inner})" if tokens[k] == "[" else f"repeat({inner})" if many else inner)
                k = end + 1 + many
            else:
                items.append(self.item(tokens[k]))
                k += 1
        return items[0] if len(items) == 1 else f"seq({', '.join(items)})"

    def item(self, token: str) -> str:
        if token in TERMINALS:
            return TERMINALS[token]
        if token.startswith('"'):
            word = token[1:-1]
            if word in OPERATORS or word in RESERVED:
                return token
            self.words[word] = None
            return f"alias($._{word}_word, {token})"
        return f"$._{token}" if self.named[token] in self.hidden else f"$.{token}"


def _rules(source: str) -> Iterator[tuple[str, list[str]]]:
    """Each rule with the tokens of its body; without what stands for text that does not parse."""
    text = re.sub(r"^//.*", "", source.partition("%declare")[0], flags=re.MULTILINE)
    for match in re.finditer(r"^(\??[a-z_]+):(.*?)(?=^\??[a-z_]+:|\Z)", text, re.MULTILINE | re.DOTALL):
        yield match[1], _TOKEN.findall(match[2])


def _alternatives(tokens: list[str]) -> list[tuple[list[str], str | None]]:
    return [(t, a) for t, a in _split(tokens) if "UNREAD" not in t]


def _split(tokens: list[str]) -> list[tuple[list[str], str | None]]:
    """Alternatives, each with the name that it has of its own."""
    out: list[tuple[list[str], str | None]] = []
    depth, start = 0, 0
    for k, t in enumerate([*tokens, "|"]):
        depth += (t in "([") - (t in ")]") if t in "()[]" else 0
        if t == "|" and depth == 0:
            part = tokens[start:k]
            alias = part[part.index("->") + 1] if "->" in part else None
            out.append((part[: part.index("->")] if alias else part, alias))
            start = k + 1
    return out


def _matching(tokens: list[str], k: int) -> int:
    depth = 0
    for end in range(k, len(tokens)):
        depth += (tokens[end] in ("(", "[")) - (tokens[end] in (")", "]"))
        if depth == 0:
            return end
    raise AssertionError(tokens)


def _choice(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"choice({', '.join(choices)})"


def files() -> dict[Path, str]:
    """What is made, by where it belongs: the grammar, and for the scanner the words that are keywords only where they
    stand like one."""
    rules = _Rules(GRAMMAR.read_text("utf-8"))
    made = rules.run()
    externals = ", ".join(f"$._{w}_word" for w in rules.words)
    lines = [f"    {name}: ($) => {body},\n" for name, body in made.items()]
    words = "".join(f'    "{w}",\n' for w in rules.words)
    head = "// In the order of grammar.js, which is made with it.\nstatic const char *const WORDS[] = {\n"
    return {
        FOLDER / "grammar.js": _HEAD % externals + "".join(lines) + "  },\n});\n",
        FOLDER / "src" / "words.h": f"{head}{words}}};\n",
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, "utf-8")
