"""Expressions: from the loop IR to instructions, on scalars and in lanes.

In: expressions, the names and buffers in scope, the vector loop around. Out: operands. A value is a vector only where
it depends on the vector loop's variable; a scalar becomes lanes where it meets one. Trees of any depth are evaluated:
Python's own limit is not met.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..loops.ir import Apply, Const, Expr, Load, Var
from ..scalar import FUNCTIONS, Scalar
from ..scalar.random import fold_key
from . import maths
from .instructions import Instructions
from .memory import Accesses
from .text import Function, fault, literal
from .values import Index, Operand, Term, Value, plus, scaled, sum_of

SMALL = 1 << 16  # x (SMALL / n + 1) / SMALL is x / n, both rounded down, for x n < SMALL
DEEP = 100  # how far expressions are walked by recursion


def function(name: str) -> Scalar:
    """A scalar function of the loop IR."""
    if name not in FUNCTIONS:
        raise fault(f"the loop IR has no function '{name}'")
    return FUNCTIONS[name]


def _bottom_up(root: Expr) -> list[Expr]:
    """Every function and load below an expression, operands first, each once."""
    order: list[Expr] = []
    seen: set[int] = set()
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        e, ready = stack.pop()
        if ready:
            order.append(e)
        elif isinstance(e, Apply | Load) and id(e) not in seen:
            seen.add(id(e))
            stack.append((e, True))
            stack += [(a, False) for a in reversed(e.args if isinstance(e, Apply) else (e.index,))]
    return order


def _variables(root: Expr) -> tuple[str, ...]:
    """The variables of an expression that reads no memory; none where it does."""
    names: dict[str, None] = {}
    stack = [root]
    while stack:
        match stack.pop():
            case Var(name):
                names[name] = None
            case Load():
                return ()
            case Apply(_, args, _):
                stack += args
    return tuple(names)


class Evaluator(Accesses):
    """The names in scope, and what expressions of them evaluate to."""

    def __init__(self, fn: Function):
        super().__init__(fn)
        self.names: dict[str, Operand] = {}
        self._free: dict[int, tuple[str, ...]] = {}  # of an index, by identity: the variables in it
        self._indices: dict[tuple[object, ...], Operand] = {}  # by identity and the values of its variables

    def evaluate(self, expr: Expr, stem: str = "t") -> Operand:
        """The operand an expression stands for; `stem` names the result of its outermost function."""
        if type(expr) is Var and expr.name in self.names:
            return self.names[expr.name]
        return self._evaluate(expr, stem, {}, 0)

    def _evaluate(self, e: Expr, stem: str, done: dict[int, Operand], depth: int) -> Operand:
        """`done` has the operands of the subtrees met so far, by identity: a shared one is evaluated once."""
        if type(e) is Var:
            if e.name not in self.names:
                raise fault(f"'{e.name}' is not bound here")
            return self.names[e.name]
        if type(e) is Const:
            return Index((), int(e.value)) if e.dtype == "i64" else self.constant(e)
        known = done.get(id(e))
        if known is not None:
            return known
        names = self.names
        if depth > DEEP:
            for part in _bottom_up(e):
                self._evaluate(part, "t", done, 0)
            return done[id(e)]
        if type(e) is Load:
            shallow = depth < DEEP // 10
            index = self.index_of(e.index) if shallow else self._evaluate(e.index, "t", done, depth + 1)
            value = self.load(e.buffer, index, e.buffer if stem == "t" else stem)
        else:
            assert type(e) is Apply
            args = [
                names[a.name] if type(a) is Var and a.name in names else self._evaluate(a, "t", done, depth + 1)
                for a in e.args
            ]
            value = self.apply(e.fn, args, e.dtype, stem)
        done[id(e)] = value
        return value

    def index_of(self, e: Expr) -> Operand:
        """The operand of an index; in the copies of an unrolled loop most indices have been seen before."""
        if type(e) is not Apply:
            return self.evaluate(e)
        free = self._free.get(id(e))
        if free is None:
            free = self._free[id(e)] = _variables(e)
        if not free:
            return self.evaluate(e)
        names = self.names
        key = (id(e), self.lanes.count if self.lanes else 1, *[names.get(name) for name in free])
        known = self._indices.get(key)
        if known is None:
            known = self._indices[key] = self.evaluate(e)
        return known

    def constant(self, c: Const) -> Value:
        return Value(literal(c.value, c.dtype), c.dtype, 1, 0, c)

    def apply(self, fn: str, args: list[Operand], dtype: str, stem: str) -> Operand:
        wide, indices = 1, 0
        for a in args:
            if type(a) is Index:
                indices += 1
                if a.stride and self.lanes:
                    wide = self.lanes.count
            elif a.lanes > 1:
                wide = a.lanes
        if indices == len(args) and (exact := self.index_function(fn, args)) is not None:
            return exact
        if wide > 1 and fn in ("floordiv", "mod") and indices == 2 and (apart := self.divided(fn, *args)) is not None:
            return apart
        if fn == "select" and isinstance(args[0], Value) and args[0].const is not None:
            return args[1] if args[0].const.value else args[2]
        if wide > 1:
            values = [a if type(a) is Value and a.lanes > 1 else self.in_lanes(a) for a in args]
        else:
            values = [a if type(a) is Value and a.lanes == 1 else self.scalar(a) for a in args]
        rule = function(fn)
        if fn == "random":
            fn, values[0] = self.folded_key(args[0])
        level, refs = max([v.level for v in values]), [v.ref for v in values]
        source = values[0].dtype if fn != "select" else dtype
        i = Instructions(self.fn, source, wide, level, stem)
        if rule.shared:
            ref = maths.call(i.of(dtype), fn, refs)
        elif fn == "cast":
            if source == dtype:
                return args[0]
            ref = rule.llvm(i, refs[0], dtype)
        else:
            ref = rule.llvm(i, *refs)
        return self.result(Value(ref, dtype, wide, level))

    def folded_key(self, key: Operand) -> tuple[str, Value]:
        """The key of `random` in 32 bits, and the function for it: one key for all lanes is folded once."""
        each = self.varies(key)
        v = self.in_lanes(key) if each else self.scalar(key)
        folded = fold_key(self.instructions(v), v.ref)
        return maths.EACH if each else "random", Value(folded, "i64", v.lanes, v.level)

    def divided(self, fn: str, x: Operand, y: Operand) -> Value | None:
        """The quotient or what is left of an index that grows from lane to lane, by a known number: of lane 0 it is a
        scalar, and what that leaves is small in all lanes. None where it is not."""
        assert self.lanes is not None and isinstance(x, Index) and isinstance(y, Index)
        n, most = y.constant, y.constant + x.stride * (self.lanes.count - 1)  # what lanes divide is less
        if not y.known or n <= 0 or x.stride <= 0 or (most > 2 * n and most * n > SMALL):
            return None
        first, rest = (self.scalar(self.apply(f, [x.base, y], "i64", "t")) for f in ("floordiv", "mod"))
        left = self.in_lanes(Index((Term(rest.ref, rest.level, 1),), 0, x.stride))
        level = max(left.level, first.level)
        i = Instructions(self.fn, "i64", left.lanes, level)
        if most <= 2 * n:
            over = i.compare("sge", left.ref, i.const(n))
            more, less = i.select(over, i.const(1), i.const(0)), i.select(over, i.const(n), i.const(0))
        else:
            more = i.op("lshr", i.mul(left.ref, i.const(SMALL // n + 1)), i.const(SMALL.bit_length() - 1))
            less = i.mul(more, i.const(n))
        ref = i.add(more, i.splat(first.ref)) if fn == "floordiv" else i.sub(left.ref, less)
        return Value(ref, "i64", left.lanes, level)

    def index_function(self, fn: str, args: Sequence[Operand]) -> Operand | None:
        """Functions of indices that stay an index or fold to a constant; None where instructions are needed."""
        a, b = args[0], args[-1]
        assert type(a) is Index and type(b) is Index
        if fn == "add":
            return sum_of(a, b)
        if fn == "mul":
            return self.product(a, b)
        if fn == "sub":
            return sum_of(a, b, -1)
        if fn == "neg":
            return scaled(a, -1)
        if fn in ("floordiv", "mod"):
            return Index((), int(function(fn).value("i64", a.constant, b.constant))) if a.known and b.known else None
        if len(args) != 2 or not (fn in ("minimum", "maximum") or function(fn).result == "bool"):
            return None
        gap = sum_of(a, b, -1)
        if not gap.known:
            return None
        if fn in ("minimum", "maximum"):
            return a if (gap.constant <= 0) == (fn == "minimum") else b
        return self.constant(Const(function(fn).value("i64", gap.constant, 0), "bool"))

    def product(self, a: Index, b: Index) -> Index | None:
        """a * b, distributed while that stays short, so that what is invariant is a term of its own."""
        if b.known:
            return scaled(a, b.constant)
        if a.known:
            return scaled(b, a.constant)
        if a.stride or b.stride:
            return None
        if len(a.terms) * len(b.terms) > 4:
            return None
        total = sum_of(scaled(Index(a.terms), b.constant), scaled(Index(b.terms), a.constant))
        total = plus(total, a.constant * b.constant)
        for s in a.terms:
            for t in b.terms:
                level = max(s.level, t.level)
                x, y = sorted((s.ref, t.ref))
                ref = self.fn.pure(f"mul i64 {x}, {y}", level)
                total = sum_of(total, Index((Term(ref, level, s.coefficient * t.coefficient),)))
        return total
