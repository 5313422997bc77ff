"""Syntax tree -> the one canonical text of it, comments included.

`parse(format(parse(s)))` is `parse(s)`, and formatting again changes nothing. The author's own hand is followed in four
places, because it carries meaning: a blank line between statements or one-line definitions (one is kept), a pipeline
written one stage a line, a matrix written one row a line, and a block of one statement on the line of its `{`.

A comment stays where it is: on its own line before a statement, a definition, an item of a list or a stage of a
pipeline, or behind one of these. One that stands elsewhere inside a statement moves to the line before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from . import ast
from .layout import HARD, LINE, SOFT, Broken, Doc, Trailing, fill, group, is_hard, lay_out, nest
from .original import Original
from .source import Source

# How tightly an expression binds, loosest first; the grammar's levels.
PIPE, IF, OR, AND, NOT, COMPARE, RANGE, SUM, PRODUCT, NEGATE, POWER, POSTFIX = range(12)

# operator: its own level, the least its left and its right operand may have
_BINARY = {
    "or": (OR, OR, AND), "and": (AND, AND, NOT), "^": (POWER, POSTFIX, NEGATE),
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), (COMPARE, RANGE, RANGE)),
    **dict.fromkeys(("+", "-"), (SUM, SUM, PRODUCT)),
    **dict.fromkeys(("*", "/", "//", "%", "@"), (PRODUCT, PRODUCT, NEGATE)),
}  # fmt: skip

# Words that begin a statement when an expression follows: as names they need brackets there.
_LEADING_WORDS = ("repeat", "case", "expect")


def format(module: ast.Module, source: Source) -> str:
    """The canonical text of a module that was parsed from `source`; ends with a newline unless empty.

    Nodes made by a program are printed too: what their spans say about lines is then absent.
    """
    text = lay_out(_Layout(Original(module, source)).module(module))
    return text + "\n" if text else ""


class _Layout:
    """Makes documents in the order of the source, so that each comment is met where it belongs."""

    def __init__(self, original: Original):
        self.original = original

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

    def behind(self, offset: int, limit: int) -> list[Doc]:
        """The comment behind `offset` on its line, if one stands there before `limit`."""
        return [Trailing(c.text) for c in self.original.take(offset, min(self.original.line_end(offset), limit))]

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
                    return f"import {_quoted(path)}"
                return group(f"from {_quoted(path)} import ", nest(fill(_commas([*names]))))
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
                return (f"test {_quoted(name)} ", self.block(body, d.span.start, self.test_item))
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
        return (t.base, _bracketed("[", [self.item(d) for d in t.dims], "]"))

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
        return (" -> ", _bracketed("(", named, ")"))

    # --- statements

    def train_item(self, item: ast.Assign | ast.Metric | ast.StopWhen | ast.UpdateRule, width: int) -> Doc:
        match item:
            case ast.Assign(targets, value) if _is_plain(item):
                return (f"{targets[0].name:<{width}} = ", self.expr(value))
            case ast.Metric(name, value):
                return (f"metric {name} = ", self.expr(value))
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
                return (f"reject {_quoted(text)} ", self.expr(value))
        return self.statement(item)

    def within(self, tolerance: ast.Expr | None) -> Doc:
        return (" within ", self.expr(tolerance)) if tolerance else ""

    def statement(self, s: ast.Statement) -> Doc:
        match s:
            case ast.Assign(targets, value):
                shown = [self.target(t) for t in targets]
                left = shown[0] if len(shown) == 1 else _bracketed("(", shown, ")")
                return (left, " = ", self.expr(value))
            case ast.Update(name, value):
                return (name, " := ", self.expr(value))
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
        doc = (t.name, "[", fill(_commas([self.item(i) for i in t.indices])), "]")
        return ("(", doc, ")") if t.name in _LEADING_WORDS else doc

    # --- expressions

    def expr(self, e: ast.Expr, least: int = PIPE) -> Doc:
        """The expression, in brackets if it binds less tightly than `least`."""
        doc = self.bare(e)
        return ("(", doc, ")") if _level(e) < least else doc

    def bare(self, e: ast.Expr) -> Doc:
        match e:
            case ast.Name(id=name):
                return name
            case ast.Int(value):
                return str(value)
            case ast.Float(value):
                return self.number(e)
            case ast.Bool(value):
                return "true" if value else "false"
            case ast.Str(value):
                return _quoted(value)
            case ast.List(items):
                return self.listed("[", items, self.bare, "]", e.span.start, e.span.end)
            case ast.Tuple(items):
                closing = ",)" if len(items) == 1 else ")"
                return self.listed("(", items, self.bare, closing, e.span.start, e.span.end)
            case ast.Unary("not", operand):
                return ("not ", self.expr(operand, NOT))
            case ast.Unary(_, operand):
                return ("-", self.expr(operand, NEGATE))
            case ast.Binary():
                return self.binary(e)
            case ast.Range(start, stop):
                return (self.expr(start, SUM), "..", self.expr(stop, SUM))
            case ast.IfExpr():
                return self.if_expr(e)
            case ast.Call(function, arguments):
                listed = self.listed("(", arguments, self.argument, ")", function.span.end, e.span.end)
                return (self.callee(function), listed)
            case ast.Pipe():
                return self.pipeline(e)
            case ast.Attribute(base, name):
                number = isinstance(base, ast.Int | ast.Float)
                return (("(", self.bare(base), ")") if number else self.expr(base, POSTFIX), ".", name)
            case ast.Index(base, items):
                return (self.expr(base, POSTFIX), _bracketed("[", [self.item(i) for i in items], "]"))
            case ast.Comprehension(reduction, binders, body):
                bound = _bracketed("[", [self.binder(b) for b in binders], "]")
                return (reduction, bound, group("(", nest(SOFT, self.expr(body)), SOFT, ")"))
        raise AssertionError(e)

    def number(self, e: ast.Float) -> str:
        """As it was written, where that is known: 1e-3 and 0.001 are the author's choice."""
        text = e.span.text
        try:
            return text if float(text) == e.value and not text.startswith("(") and "_" not in text else repr(e.value)
        except ValueError:
            return repr(e.value)

    def callee(self, function: ast.Expr) -> Doc:
        match function:
            case ast.Index(base=ast.Name(id="sum" | "mean" | "prod" | "max" | "min")):
                return ("(", self.bare(function), ")")  # sum[i](x) would be a reduction over i
        return self.expr(function, POSTFIX)

    def argument(self, a: ast.Argument) -> Doc:
        return (a.name, " = ", self.bare(a.value)) if a.name else self.bare(a.value)

    def item(self, item: ast.Expr | ast.Slice | ast.Rest) -> Doc:
        """Between the brackets of an index or a type, where a product inside a sum is written tight: `2*i + u`."""
        match item:
            case ast.Rest(name):
                return f"*{name}"
            case ast.Slice(start, stop, step):
                first = (self.expr(start, IF) if start else "", ":", self.expr(stop, IF) if stop else "")
                return (*first, ":", self.expr(step, IF)) if step else first
            case ast.Binary("+" | "-") if tight := self.tight(item):
                return tight
        return self.expr(item)

    def tight(self, e: ast.Expr) -> str | None:
        """A sum of products of names and integers, or None for anything else."""
        match e:
            case ast.Name(id=name):
                return name
            case ast.Int(value):
                return str(value)
            case ast.Binary("+" | "-" as op, left, right) if not (isinstance(right, ast.Binary) and right.op in "+-"):
                separator = f" {op} "
            case ast.Binary("*" as op, left, right) if not any(isinstance(x, ast.Binary) for x in (left, right)):
                separator = op
            case _:
                return None
        first, second = self.tight(left), self.tight(right)
        return f"{first}{separator}{second}" if first and second else None

    def binder(self, b: ast.Binder) -> Doc:
        if b.rest:
            return f"*{b.name}"
        return (b.name, " in ", self.bare(b.range)) if b.range else b.name

    def binary(self, e: ast.Binary) -> Doc:
        """Chains of one level, `a + b - c`, filled; along the left operands in a loop, for they may be long."""
        links = [e]
        while isinstance(left := links[-1].left, ast.Binary):
            links.append(left)
        items: list[Doc] = [self.expr(left, _BINARY[links[-1].op][1])]
        below: ast.Binary | None = None
        for link in reversed(links):
            level, left_least, right_least = _BINARY[link.op]
            if below is not None and (_level(below) != level or level == COMPARE or link.op == "^"):
                doc = _chain(items)
                items = [("(", doc, ")") if _level(below) < left_least else doc]
            right = self.expr(link.right, right_least)
            if link.op == "^":
                items = [(items[0], "^", right)]
            else:
                items[-1] = (items[-1], " ", link.op)
                items.append(right)
            below = link
        return _chain(items)

    def if_expr(self, e: ast.IfExpr) -> Doc:
        parts: list[Doc] = []
        current: ast.Expr = e
        while isinstance(current, ast.IfExpr):
            parts += ["if ", self.expr(current.condition), " then ", self.expr(current.then), " else "]
            current = current.otherwise
        return (*parts, self.expr(current, IF))

    def pipeline(self, e: ast.Pipe) -> Doc:
        """`x |> f |> g` on one line, or one stage a line where the author broke it or it is too long."""
        stages = [e]
        while isinstance(inner := stages[-1].value, ast.Pipe):
            stages.append(inner)
        stages.reverse()
        parts: list[Doc] = []
        head = self.expr(stages[0].value, OR)  # brackets around an `if` tell the reader what is piped
        broken = False
        for stage in stages:
            gap = stage.value.span.end, stage.target.span.start
            broken = broken or self.original.broken(*gap)
            parts += self.behind(*gap)
            for c in self.original.take(*gap):
                parts += [HARD, c.text]
            label = f"{stage.label}: " if stage.label else ""
            parts += [LINE, "|> ", label, self.expr(stage.target, POSTFIX)]
        line: Doc = HARD if broken else LINE
        return group(head, nest(*(line if p is LINE else p for p in parts)))

    def listed(
        self, opening: str, items: Sequence[Any], make: Callable[[Any], Doc], closing: str, start: int, end: int
    ) -> Doc:
        """Items between brackets at `start` and `end`: filled; rows of a matrix and commented items one a line."""
        if not items:
            return opening + closing
        gaps = [(a.span.end, b.span.start) for a, b in pairwise(items)]
        first, last = (start, items[0].span.start), (items[-1].span.end, end)
        rows = all(isinstance(i, ast.List) for i in items)
        commented = any(self.original.has_comment(*gap) for gap in (first, *gaps, last))
        if not rows and not commented:
            docs = [make(i) for i in items]
            if len(docs) == 1 and _hugs(items[0]):
                return (opening, docs[0], closing)  # f([...]): one pair of brackets breaks, not two
            return _bracketed(opening, docs, closing)
        broken = commented or any(self.original.broken(*gap) for gap in gaps)
        line, edge = (HARD, HARD) if broken else (LINE, SOFT)
        lines: list[Doc] = [edge]
        for c in self.original.take(*first):
            lines += [c.text, HARD]
        for item, gap in zip(items, gaps, strict=False):
            lines += [make(item), ",", *self.behind(*gap), line]
            for c in self.original.take(*gap):
                lines += [c.text, HARD]
        lines += [make(items[-1]), "" if closing == ",)" else Broken(","), *self.behind(*last)]
        for c in self.original.take(*last):
            lines += [HARD, c.text]
        return group(opening, nest(*lines), edge, closing)


def _chain(items: list[Doc]) -> Doc:
    return group(nest(fill(items))) if len(items) > 1 else items[0]


def _bracketed(opening: str, docs: Sequence[Doc], closing: str) -> Doc:
    return group(opening, nest(SOFT, fill(_commas(docs))), SOFT, closing)


def _commas(docs: Sequence[Doc]) -> list[Doc]:
    return [*((d, ",") for d in docs[:-1]), docs[-1]] if docs else []


def _hugs(item: ast.Tree) -> bool:
    return isinstance(item, ast.Argument) and item.name is None and isinstance(item.value, ast.List)


def _is_plain(s: ast.Assign) -> bool:
    return len(s.targets) == 1 and s.targets[0].indices is None


def _level(e: ast.Expr) -> int:
    match e:
        case ast.Pipe():
            return PIPE
        case ast.IfExpr():
            return IF
        case ast.Unary(op):
            return NOT if op == "not" else NEGATE
        case ast.Binary(op):
            return _BINARY[op][0]
        case ast.Range():
            return RANGE
    return POSTFIX


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


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
