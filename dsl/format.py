"""Syntax tree -> the one canonical text of it, comments included.

`parse(format(parse(s)))` is `parse(s)`, and formatting again changes nothing. The author's own hand is followed in four
places, because it carries meaning: a blank line between statements or one-line definitions (one is kept), a pipeline
written one stage a line, a matrix written one row a line, and a block of one statement on the line of its `{`.

A comment stays where it is: on its own line before a statement, a definition, an item of a list or a stage of a
pipeline, or behind one of these. One that stands elsewhere inside a statement moves to the line before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import ast
from .expressions import Expressions, bracketed, commas, quoted
from .layout import HARD, LINE, Doc, fill, group, is_hard, lay_out, nest
from .original import Original
from .source import Source

# Words that begin a statement when an expression follows: as names they need brackets there.
_LEADING_WORDS = ("repeat", "case", "expect")


def format(module: ast.Module, source: Source) -> str:
    """The canonical text of a module that was parsed from `source`; ends with a newline unless empty.

    Nodes made by a program are printed too: what their spans say about lines is then absent.
    """
    text = lay_out(_Layout(Original(module, source)).module(module))
    return text + "\n" if text else ""


class _Layout(Expressions):
    """Makes documents in the order of the source, so that each comment is met where it belongs."""

    # --- sequences of statements or definitions, with the comments between them

    def sequence(
        self, items: Sequence[Any], make: Callable[[Any], Doc], start: int, end: int,
        alone: Callable[[Doc], bool] = lambda doc: False,
    ) -> list[Doc]:  # fmt: skip
        """The lines for items and own-line comments from `start` to `end`.

        An item that is `alone` is set apart by an empty line, together with the comments before it.
        """
        lines: list[Doc] = []
        ended = -1  # where the text of the last line ends

        def add(doc: Doc, begins: int, ends: int, apart: bool = False) -> None:
            nonlocal ended
            if lines:
                lines.append(HARD)
                if apart or self.original.blank_before(ended, begins):
                    lines.append(HARD)
            lines.append(doc)
            ended = ends

        after_alone = False
        for item in items:
            begins, ends = item.span.start, item.span.end
            before = self.original.take(start, begins)
            doc = make(item)
            inside = self.original.take(begins, ends)
            behind = self.behind(ends, end)
            is_alone = alone(doc)
            apart = after_alone or is_alone
            for c in before:
                add(c.text, c.span.start, c.span.end, apart)
                apart = False
            for c in inside:
                add(c.text, begins, begins, apart)
                apart = False
            add((doc, *behind), begins, self.original.line_end(ends) if behind else ends, apart)
            after_alone = is_alone
            start = ends
        for c in self.original.take(start, end):
            add(c.text, c.span.start, c.span.end, after_alone)
            after_alone = False
        return lines

    def module(self, module: ast.Module) -> Doc:
        end = self.original.end
        return tuple(self.sequence(module.definitions, self.definition, 0, end, lambda doc: "\n" in lay_out(doc)))

    def block(self, statements: Sequence[Any], after: int, make: Callable[[Any], Doc] | None = None) -> Doc:
        """`{ ... }`; its `{` is the first one at or after `after`."""
        make = make or self.statement
        opening, closing = self.original.braces(after)
        behind = self.behind(opening, closing)
        if not statements and not self.original.has_comment(opening, closing):
            return "{ }"
        same_line = closing > opening and statements and not self.original.broken(opening, statements[0].span.start)
        lines = self.sequence(statements, make, opening, closing)
        if same_line and len(lines) == 1 and not behind and not is_hard(lines[0]):
            return group("{", nest(LINE, lines[0]), LINE, "}")
        return ("{", *behind, nest(HARD, *lines), HARD, "}")

    # --- definitions

    def definition(self, d: ast.Definition) -> Doc:
        match d:
            case ast.Import(path, names):
                if names is None:
                    return f"import {quoted(path)}"
                return group(f"from {quoted(path)} import ", nest(fill(commas([*names]))))
            case ast.Const(name, type, value):
                return ("const ", name, self.annotation(type), " = ", self.expr(value))
            case ast.Hyper(name, type, default, choices):
                allowed: Doc = (" in ", self.expr(choices)) if choices else ""
                return ("hyper ", name, self.annotation(type), " = ", self.expr(default), allowed)
            case ast.Function(name, _, _, body):
                return self.computed("fn", d, body)
            case ast.Export(name, _, _, body):
                return self.computed("export", d, body)
            case ast.Layer(name, _, results, body, top):
                word = "model " if top else "layer "
                return (word, name, self.parameters(d), self.results(results), " ", self.block(body, d.span.start))
            case ast.Optimizer(name, _, body):
                return ("optimizer ", name, self.parameters(d), " ", self.block(body, d.span.start))
            case ast.Train(model, _, body):
                settings = [s.targets[0].name for s in body if isinstance(s, ast.Assign) and _is_plain(s)]
                width = max(map(len, settings), default=0)
                block = self.block(body, d.span.start, lambda item: self.train_item(item, width))
                return ("train ", model, self.parameters(d), " ", block)
            case ast.Test(name, body):
                return (f"test {quoted(name)} ", self.block(body, d.span.start, self.test_item))
        raise AssertionError(d)

    def computed(self, word: str, d: ast.Function | ast.Export, body: Any) -> Doc:
        head = (word, " ", d.name, self.parameters(d), self.results(d.results))
        if isinstance(body, tuple):
            return (*head, " ", self.block(body, d.span.start))
        return (*head, " =", group(nest(LINE, self.expr(body))))

    def annotation(self, type: ast.Type | None) -> Doc:
        return (": ", self.type(type)) if type else ""

    def type(self, t: ast.Type) -> Doc:
        if t.dims is None or (not t.dims and t.base != "bool"):
            return t.base
        return (t.base, bracketed("[", [self.item(d) for d in t.dims], "]"))

    def parameters(self, d: ast.Function | ast.Layer | ast.Optimizer | ast.Train | ast.Export) -> Doc:
        start, end = d.span.start, d.span.start
        if d.parameters:
            end = self.original.find(")", d.parameters[-1].span.end)  # a comment may hold one: then it moves
        return self.listed("(", d.parameters, self.parameter, ")", start, end)

    def parameter(self, p: ast.Parameter) -> Doc:
        return (p.name, self.annotation(p.type), (" = ", self.expr(p.default)) if p.default else "")

    def results(self, results: Sequence[ast.Result]) -> Doc:
        if not results:
            return ""
        if results[0].name is None:
            return (" -> ", self.type(results[0].type))
        named = [(r.name or "", self.annotation(r.type)) for r in results]
        return (" -> ", bracketed("(", named, ")"))

    # --- statements

    def train_item(
        self, item: ast.Assign | ast.Metric | ast.Minimize | ast.Update | ast.StopWhen | ast.UpdateRule, width: int
    ) -> Doc:
        match item:
            case ast.Assign(targets, value) if _is_plain(item):
                return (f"{targets[0].name:<{width}} = ", self.expr(value))
            case ast.Metric(name, value):
                return (f"metric {name} = ", self.expr(value))
            case ast.Minimize(name, value, groups, optimizers):
                pairs = zip(groups, optimizers, strict=True)
                over: list[Doc] = [(self.expr(g), " with ", self.expr(o)) for g, o in pairs]
                return (f"minimize {name} = ", self.expr(value), " over", group(nest(LINE, fill(commas(over)))))
            case ast.StopWhen(condition):
                return ("stop when ", self.expr(condition))
            case ast.UpdateRule(body):
                return ("update ", self.block(body, item.span.start))
        return self.statement(item)

    def test_item(self, item: ast.Case | ast.Expect | ast.GradCheck | ast.Reject | ast.Assign) -> Doc:
        match item:
            case ast.Case(call, expected, within):
                return ("case ", self.expr(call), " =>", group(nest(LINE, self.expr(expected))), self.within(within))
            case ast.Expect(condition, within):
                return ("expect ", self.expr(condition), self.within(within))
            case ast.GradCheck(model):
                return f"gradcheck {model}"
            case ast.Reject(text, value):
                return (f"reject {quoted(text)} ", self.expr(value))
        return self.statement(item)

    def within(self, tolerance: ast.Expr | None) -> Doc:
        return (" within ", self.expr(tolerance)) if tolerance else ""

    def statement(self, s: ast.Statement) -> Doc:
        match s:
            case ast.Assign(targets, value):
                shown = [self.target(t) for t in targets]
                left = shown[0] if len(shown) == 1 else bracketed("(", shown, ")")
                return (left, " = ", self.expr(value))
            case ast.Update(target, value):
                return (self.expr(target), " := ", self.expr(value))
            case ast.Variable(role, name, type, init, drawn):
                return (role, " ", name, self.annotation(type), " ~ " if drawn else " = ", self.expr(init))
            case ast.Share(name, value):
                return ("share ", name, " = ", self.expr(value))
            case ast.Return(value):
                return ("return ", self.expr(value))
            case ast.If():
                return self.if_statement(s)
            case ast.When(training, otherwise):
                body = self.block(training, s.span.start)
                return ("when training ", body, self.otherwise(otherwise, s.span.start))
            case ast.Repeat(index, count, body):
                over: Doc = (index, " in ") if index else ""
                counted = self.expr(count)
                if not index and isinstance(_first_leaf(count), ast.List):
                    counted = ("(", counted, ")")  # repeat[...] is an array of that name
                return ("repeat ", over, counted, " ", self.block(body, count.span.end))
            case ast.Scan(index, range, until, body):
                stop: Doc = (" until ", self.expr(until)) if until else ""
                at = (until or range).span.end
                return ("scan ", index, " in ", self.expr(range), stop, " ", self.block(body, at))
            case ast.Evaluate(value):
                first = _first_leaf(value)
                leading = isinstance(first, ast.Name) and first.id in _LEADING_WORDS
                return ("(", self.expr(value), ")") if leading else self.expr(value)
        raise AssertionError(s)

    def if_statement(self, s: ast.If) -> Doc:
        """The whole `if ... else if ... else` chain, without recursion over its branches."""
        parts: list[Doc] = []
        word = "if "
        while True:
            parts += [word, self.expr(s.condition), " ", self.block(s.then, s.condition.span.end)]
            match s.otherwise:
                case (ast.If() as inner,) if not self.original.has_comment(
                    self.original.braces(s.condition.span.end)[1], inner.span.start
                ):
                    s, word = inner, " else if "
                case _:
                    parts.append(self.otherwise(s.otherwise, s.condition.span.end))
                    return tuple(parts)

    def otherwise(self, statements: Sequence[ast.Statement], then: int) -> Doc:
        """` else { ... }`, where the block before it opens first after `then`."""
        return (" else ", self.block(statements, self.original.braces(then)[1])) if statements else ""

    def target(self, t: ast.Target) -> Doc:
        if t.indices is None:
            return t.name
        doc = (t.name, "[", fill(commas([self.item(i) for i in t.indices])), "]")
        return ("(", doc, ")") if t.name in _LEADING_WORDS else doc


def _is_plain(s: ast.Assign) -> bool:
    return len(s.targets) == 1 and s.targets[0].indices is None


def _first_leaf(e: ast.Expr) -> ast.Expr:
    """The expression that the text of `e` begins with."""
    while True:
        match e:
            case ast.Binary(left=inner) | ast.Pipe(value=inner) | ast.Range(start=inner) | ast.Call(function=inner):
                e = inner
            case ast.Attribute(base=inner) | ast.Index(base=inner):
                e = inner
            case _:
                return e
