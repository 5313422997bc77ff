"""Expressions as documents of the formatter: brackets where they are needed, chains filled, pipelines as they were laid
out, lists broken at items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from . import ast
from .chains import postfixes
from .layout import HARD, LINE, SOFT, Broken, Doc, Trailing, fill, group, nest
from .original import Original

# How tightly an expression binds, loosest first; the grammar's levels.
PIPE, IF, OR, AND, NOT, COMPARE, RANGE, SUM, PRODUCT, NEGATE, POWER, POSTFIX = range(12)

# operator: its own level, the least its left and its right operand may have
_BINARY = {
    "or": (OR, OR, AND), "and": (AND, AND, NOT), "^": (POWER, POSTFIX, NEGATE),
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), (COMPARE, RANGE, RANGE)),
    **dict.fromkeys(("+", "-"), (SUM, SUM, PRODUCT)),
    **dict.fromkeys(("*", "/", "//", "%", "@"), (PRODUCT, PRODUCT, NEGATE)),
}  # fmt: skip


class Expressions:
    """Makes documents in the order of the source, so that each comment is met where it belongs."""

    def __init__(self, original: Original):
        self.original = original

    def behind(self, offset: int, limit: int) -> list[Doc]:
        """The comment behind `offset` on its line, if one stands there before `limit`."""
        return [Trailing(c.text) for c in self.original.take(offset, min(self.original.line_end(offset), limit))]

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
                return quoted(value)
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
            case ast.Pipe():
                return self.pipeline(e)
            case ast.Call(ast.Name(id=name) as function, arguments):  # a frame less where calls are nested
                return (name, self.listed("(", arguments, self.argument, ")", function.span.end, e.span.end))
            case ast.Call() | ast.Index() | ast.Attribute():
                return self.postfix(e)
            case ast.Comprehension(reduction, binders, body):
                bound = bracketed("[", [self.binder(b) for b in binders], "]")
                return (reduction, bound, group("(", nest(SOFT, self.expr(body)), SOFT, ")"))
        raise AssertionError(e)

    def number(self, e: ast.Float) -> str:
        """As it was written, where that is known: 1e-3 and 0.001 are the author's choice."""
        text = e.span.text
        try:
            return text if float(text) == e.value and not text.startswith("(") and "_" not in text else repr(e.value)
        except ValueError:
            return repr(e.value)

    def postfix(self, e: ast.Expr) -> Doc:
        """`x.T[0](a)`, from what stands first."""
        first, steps = postfixes(e)
        number = isinstance(first, ast.Int | ast.Float) and isinstance(steps[0], ast.Attribute)
        parts: list[Doc] = ["(", self.bare(first), ")"] if number else [self.expr(first, POSTFIX)]
        for step in steps:
            match step:
                case ast.Attribute(name=name):
                    parts += [".", name]
                case ast.Index(items=items):
                    parts.append(bracketed("[", [self.item(i) for i in items], "]"))
                case ast.Call(function, arguments):
                    if _is_reduction(function):
                        parts = ["(", *parts, ")"]  # sum[i](x) would be a reduction over i
                    parts.append(self.listed("(", arguments, self.argument, ")", function.span.end, step.span.end))
        return tuple(parts)

    def argument(self, a: ast.Argument) -> Doc:
        return (a.name, " = ", self.bare(a.value)) if a.name else self.bare(a.value)

    def item(self, item: ast.Expr | ast.Slice | ast.Rest | ast.Binder) -> Doc:
        """Between the brackets of an index or a type, where a product inside a sum is written tight: `2*i + u`."""
        match item:
            case ast.Rest(name):
                return f"*{name}"
            case ast.Binder():
                return self.binder(item)
            case ast.Slice(start, stop, step):
                first = (self.expr(start, IF) if start else "", ":", self.expr(stop, IF) if stop else "")
                return (*first, ":", self.expr(step, IF)) if step else first
            case ast.Binary("+" | "-") if tight := self.tight(item):
                return tight
        return self.expr(item)

    def tight(self, e: ast.Expr) -> str | None:
        """A sum of products of two names or integers, or None for anything else."""
        texts: list[str | None] = []
        while isinstance(e, ast.Binary) and e.op in ("+", "-"):
            texts += [self.factor(e.right), f" {e.op} "]
            e = e.left
        texts.append(self.factor(e))
        known = [t for t in texts if t is not None]
        return "".join(reversed(known)) if len(known) == len(texts) else None

    def factor(self, e: ast.Expr) -> str | None:
        match e:
            case ast.Name(id=name):
                return name
            case ast.Int(value):
                return str(value)
            case ast.Binary("*", ast.Name() | ast.Int() as left, ast.Name() | ast.Int() as right):
                return f"{self.factor(left)}*{self.factor(right)}"
        return None

    def binder(self, binder: ast.Binder) -> Doc:
        if binder.rest:
            return f"*{binder.name}"
        return (binder.name, " in ", self.bare(binder.range)) if binder.range else binder.name

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
            return bracketed(opening, docs, closing)
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


def bracketed(opening: str, docs: Sequence[Doc], closing: str) -> Doc:
    return group(opening, nest(SOFT, fill(commas(docs))), SOFT, closing)


def commas(docs: Sequence[Doc]) -> list[Doc]:
    return [*((d, ",") for d in docs[:-1]), docs[-1]] if docs else []


def _is_reduction(e: ast.Expr) -> bool:
    match e:
        case ast.Index(base=ast.Name(id="sum" | "mean" | "prod" | "max" | "min")):
            return True
    return False


def _hugs(item: ast.Tree) -> bool:
    return isinstance(item, ast.Argument) and item.name is None and isinstance(item.value, ast.List)


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


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
