"""The branch that is not taken has no gradient: what is 0 because of a choice stays 0, whatever it is multiplied by.

    y = where(c, f(x), z)    adjoint of f(x): where(c, dy, 0)    of x: where(c, dy, 0) f'(x)

Where c does not hold, f'(x) may be infinite or NaN, and 0 times that is NaN. So the product is chosen, too: where(c,
where(c, dy, 0) f'(x), 0). Which elements of an adjoint are 0 by choice is read off the adjoint itself, through the
views, sums and products that it came through; of a product the adjoint is the first factor, as rules write it. A 0 that
is the value of something is none by choice: the derivative of sqrt(x)^2 at 0 is not 0.

What several elements contribute to is 0 by choice where none of them is taken. To ask that costs a reduction, so it is
asked only where a factor might not be finite although all inputs are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import isfinite

from ..graph.facts import finite, positive
from ..graph.nodes import Builder, Node
from ..graph.ops import OPS
from ..graph.ops.calculus import constant, number
from ..graph.ops.contraction import is_gathered
from ..graph.ops.op import MAP, VIEW

ADDED_UP = ("reduce_sum", "scatter_add", "add_along", "recurrence", "contract")  # of elements of the last operand
LIKE_FIRST = ("mul", "div", "neg", "cast", "straight_through")  # 0 where the first operand is


class Choices:
    """Of adjoints in a graph under construction: which of their elements are taken."""

    def __init__(self, b: Builder, known: Mapping[str, str], sums: bool):
        """`known` has the conditions of leaves; with `sums` it is asked what is taken of what was added up."""
        self._b, self._sums = b, sums
        self._of: dict[str, str | None] = dict(known)
        self._made: dict[tuple[str, ...], str] = {}  # what was emitted, by operator and operands

    def __call__(self, name: str) -> str | None:
        """The condition without which an element is certainly 0; None where nothing chooses."""
        todo = [name]
        while todo:
            if todo[-1] in self._of:
                todo.pop()
                continue
            n = self._b[todo[-1]]
            parts = self.parts(n)
            if missing := [p for p in parts if p not in self._of]:
                todo += missing
            else:
                self._of[todo.pop()] = self._condition(n, {p: self._of[p] for p in parts})
        return self._of[name]

    def parts(self, n: Node) -> tuple[str, ...]:
        """The operands that an element is made of, so that it is 0 where they are."""
        if n.op == "where":
            return (n.args[1 if self._is_zero(n.args[2]) else 2],) if any(map(self._is_zero, n.args[1:])) else ()
        if n.op in ("add", "sub", "concat"):
            return n.args
        if n.op in ADDED_UP:
            return n.args[-1:] if self._sums and (n.op != "contract" or len(n.args) == 1) else ()
        if n.op in LIKE_FIRST or (OPS[n.op].kind == VIEW and not n.attrs.get("value")):
            return n.args[:1]
        return ()

    def _condition(self, n: Node, parts: dict[str, str | None]) -> str | None:
        """The condition of a node, from those of its parts."""
        b, ts = self._b, list(parts.values())
        if n.op == "where" and parts:
            c = n.args[0] if self._is_zero(n.args[2]) else self._emit("not", n.args[0])
            return c if ts[0] is None else self._emit("and", c, ts[0])
        if n.op in ("add", "sub"):
            x, y = (parts[a] for a in n.args)
            return None if x is None or y is None else self._either(x, y)
        if all(t is None for t in ts) and not (parts and self._leaves_out(n)):
            return None
        every = {a: t or constant(b, True, b.type(a).with_dtype("bool")) for a, t in parts.items()}
        t = every[n.args[0]] if n.args[0] in every else next(iter(every.values()))
        if n.op == "concat":
            return b.add(n.op, tuple(every[a] for a in n.args), n.attrs)
        if n.op == "reduce_sum":
            return b.add("reduce_max", (t,), n.attrs)
        if n.op in ADDED_UP:
            by = (constant(b, 1, b.type(n.name)),) if n.op == "recurrence" else n.args[:-1]  # a link may be 0 by value
            count = b.add(n.op, (*by, b.emit("cast", t, dtype=n.dtype)), n.attrs)
            return b.emit("ne", count, constant(b, 0, b.type(count)))
        if OPS[n.op].kind == VIEW:
            return b.add(n.op, (t, *n.args[1:]), {**n.attrs, "value": False} if n.op == "pad" else n.attrs)
        return t

    def _leaves_out(self, n: Node) -> bool:
        """Whether some elements are 0 because nothing comes there: what is beside a part, what no index names."""
        margins = n.op == "pad" and any(m != 0 for m in (*n.attrs["low"], *n.attrs["high"]))
        return margins or n.op in ("scatter_add", "add_along") or (n.op == "contract" and not is_gathered(n))

    def _either(self, x: str, y: str) -> str | None:
        """x or y; (c and t) or (not c and t) is t."""
        if x == y:
            return x
        (c, s), (d, t) = self._split(x), self._split(y)
        if s == t and (self._made.get(("not", c)) == d or self._made.get(("not", d)) == c):
            return s
        return self._emit("or", x, y)

    def _split(self, x: str) -> tuple[str, str | None]:
        """c and t, or c alone."""
        n = self._b[x]
        return (n.args[0], n.args[1]) if n.op == "and" else (x, None)

    def _emit(self, op: str, *args: str) -> str:
        if (op, *args) not in self._made:
            self._made[op, *args] = self._b.emit(op, *args)
        return self._made[op, *args]

    def _is_zero(self, name: str) -> bool:
        return number(self._b, name) == 0


class Taken:
    """Makes derivatives 0 where they are 0 by choice."""

    def __init__(self, b: Builder, known: Mapping[str, str]):
        self._b = b
        self.near = Choices(b, known, sums=False)
        self._far = Choices(b, known, sums=True)

    def chosen(self, d: str, by: str, made: Collection[str]) -> str:
        """`d`, which a rule made by nodes of `made`, as one that is 0 where `by` is by choice: the adjoint of a result,
        element by element, or `d` itself where elements mix."""
        b = self._b
        if self._keeps(d, made, self._is_mild):
            return d
        choices = self.near if self._keeps(d, made, self._is_finite) else self._far
        t = choices(by if b.shape(by) == b.shape(d) else d)
        return d if t is None else b.emit("where", t, d, constant(b, 0.0, b.type(d)))

    def _keeps(self, d: str, made: Collection[str], mild: Callable[[Node], bool]) -> bool:
        """Whether all that the rule multiplied with was `mild`, so that a 0 has stayed one."""
        if d not in made:
            return True
        n = self._b[d]
        if n.op in ("mul", "div") and not mild(n):
            return False
        parts = self.near.parts(n)
        return (bool(parts) or OPS[n.op].kind != MAP) and all(self._keeps(p, made, mild) for p in parts)

    def _is_mild(self, n: Node) -> bool:
        """The second factor is a number, or one that elements share, finite where inputs are: a NaN in it is in what is
        taken, too."""
        factor = self._b[n.args[1]]
        c = number(self._b, factor.name)
        if c is not None:
            return isfinite(c) and (n.op == "mul" or c != 0)
        return factor.op in ("broadcast", "size") and self._is_finite(n)

    def _is_finite(self, n: Node) -> bool:
        """The second factor is finite where inputs and parameters are."""
        return finite(self._b, n.args[1]) if n.op == "mul" else positive(self._b, n.args[1])
