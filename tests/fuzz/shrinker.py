"""A failing program made small: text in, the smallest text found that still fails in the same way.

Works on the syntax tree alone, so that it takes any `.nn` text: statements go, an expression becomes one of its parts,
numbers and sizes become smaller, results and parameters go. What does not compile is refused by the judge, and so is
never taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from nnc.dsl import ast
from nnc.dsl.errors import NncError
from nnc.dsl.parser import parse
from nnc.dsl.source import Source

from .program import Program

Fails = Callable[[Program], bool]
EXPRESSIONS = (ast.Binary, ast.Unary, ast.Call, ast.Pipe, ast.Index, ast.Attribute, ast.IfExpr, ast.Comprehension,
               ast.Tuple, ast.List)  # fmt: skip
STATEMENTS = (ast.Assign, ast.Scan, ast.Repeat, ast.If, ast.When, ast.Update, ast.Variable, ast.Metric, ast.Function,
              ast.Layer, ast.Export)  # fmt: skip


def shrink(program: Program, fails: Fails, seconds: float = 60.0) -> Program:
    """Greedy: the first smaller program that fails is the next to be made smaller, until so many seconds are over."""
    seen = {str(program)}
    end = time.monotonic() + seconds
    again = True
    while again:
        again = False
        for smaller in _smaller(program):
            if str(smaller) in seen:
                continue
            seen.add(str(smaller))
            if time.monotonic() > end:
                return program
            if fails(smaller):
                program, again = smaller, True
                break
    return program


def _smaller(program: Program) -> Iterator[Program]:
    """Candidates, the boldest first."""
    for k in range(len(program.sizes)):
        if len(program.sizes) > 1:
            yield replace(program, sizes=(program.sizes[k],))
    texts = sorted(set(_texts(program.text)), key=len)
    for text in texts:
        if len(text) < len(program.text):
            yield replace(program, text=text)
    for text in _numbers(program.text):
        yield replace(program, text=text)
    for k, sizes in enumerate(program.sizes):
        for name, n in sizes.items():
            for m in (1, 2, 3):
                if m < n:
                    yield replace(program, sizes=(*program.sizes[:k], {**sizes, name: m}, *program.sizes[k + 1 :]))


def _texts(text: str) -> Iterator[str]:
    try:
        module = parse(Source("f.nn", text))
    except NncError:
        return
    for node in _walk(module):
        start, end = node.span.start, node.span.end
        if isinstance(node, STATEMENTS):
            yield _without_lines(text, start, end)
            if isinstance(node, ast.Scan | ast.Repeat) and node.body:
                inner = text[node.body[0].span.start : node.body[-1].span.end]
                yield text[:start] + inner + text[end:]
        if isinstance(node, EXPRESSIONS):
            for part in _parts(node):
                yield text[:start] + text[part.span.start : part.span.end] + text[end:]
            if isinstance(node, ast.Tuple) and len(node.items) > 1:
                for k in range(len(node.items)):
                    rest = [text[i.span.start : i.span.end] for j, i in enumerate(node.items) if j != k]
                    yield text[:start] + (f"({', '.join(rest)})" if len(rest) > 1 else rest[0]) + text[end:]
        if isinstance(node, ast.Function | ast.Export | ast.Layer):
            for p in node.parameters:
                before, after = text[: p.span.start], text[p.span.end :]
                yield before + after[2:] if after.startswith(", ") else before.removesuffix(", ") + after


def _without_lines(text: str, start: int, end: int) -> str:
    """Without a statement and the line it stands on."""
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", end)
    whole = not text[begin:start].strip() and (stop < 0 or not text[end:stop].strip())
    return text[:begin] + text[stop + 1 :] if whole else text[:start] + text[end:]


def _numbers(text: str) -> Iterator[str]:
    """A number made smaller, everywhere at once or in one place."""
    try:
        module = parse(Source("f.nn", text))
    except NncError:
        return
    found = [n for n in _walk(module) if isinstance(n, ast.Int) and n.value > 1]
    for value in sorted({n.value for n in found}, reverse=True):
        for smaller in (1, 2, 3, 4, value - 1):
            if smaller < value:
                yield _replaced(text, [n for n in found if n.value == value], smaller)
    for n in found:
        for smaller in (0, 1, 2):
            if smaller < n.value:
                yield _replaced(text, [n], smaller)


def _replaced(text: str, nodes: list[ast.Int], value: int) -> str:
    for n in sorted(nodes, key=lambda n: -n.span.start):
        text = text[: n.span.start] + str(value) + text[n.span.end :]
    return text


def _walk(node: ast.Tree) -> Iterator[ast.Tree]:
    yield node
    for child in _children(node):
        yield from _walk(child)


def _children(node: ast.Tree) -> Iterator[ast.Tree]:
    for f in fields(node):
        value = getattr(node, f.name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, ast.Tree):
                yield item


def _parts(node: ast.Tree) -> Iterator[ast.Tree]:
    """The expressions right below one."""
    for child in _children(node):
        if isinstance(child, ast.Argument):
            yield child.value
        elif isinstance(child, (*EXPRESSIONS, ast.Name, ast.Int, ast.Float)):
            yield child
