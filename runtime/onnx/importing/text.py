"""The text of a model, written statement by statement.

A statement is a template with the values that stand in its gaps: `"{0} |> relu"`. It is elaborated as it is added, so
its result has a type, and a template that the language refuses is a refusal of the node that asked for it. At the end,
what is read once stands where it is read, as far as that reads well, and the formatter of the language lays it out.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ....compiler.elaborate.draft import Draft
from ....compiler.types.tensors import FLOATS, TensorType
from ....dsl.errors import SourceError
from ....dsl.format import format
from ....dsl.parser import parse
from ....dsl.source import Source
from ....dsl.tokens import STATEMENTS
from ...call.column import Array
from .refusals import Refused
from .values import MAX_LITERAL, Value, known, literal

MADE_UP = re.compile(r"onnx::|val_\d+$|\d*$|.*/")  # names that exporters give to what has none
_GAP = re.compile(r"\{(\d)\}(?!\[)|\{(\d)\}")
MAX_INLINE = 60  # characters of an expression that stands where it is read


@dataclass(frozen=True, slots=True)
class Statement:
    """`names` are what it makes; a whole statement has no expression that could stand elsewhere."""

    names: tuple[str, ...]
    template: str
    operands: tuple[Value, ...]
    module: tuple[str, ...]
    whole: bool = False

    @property
    def is_pipe(self) -> bool:
        return self.template.startswith("{0} |> ")


class Text:
    """A model under construction. `arrays` are its parameters and constants by their paths."""

    def __init__(self, model: str):
        self.model = model
        self.module: tuple[str, ...] = ()  # what is written now is of this module of the network
        self._unbiased: dict[str, tuple[int, str]] = {}  # of what a dense layer makes: its statement, and its path
        self.transposed: dict[str, tuple[Value, list[int]]] = {}  # of what a transposition makes: of what, its order
        self.inputs: list[Value] = []
        self._draft = Draft(model)
        self._statements: list[Statement] = []
        self._labels: set[str] = set()
        self.arrays: dict[str, Array] = {}

    def input(self, stem: str, dtype: str, shape: Sequence[int | str]) -> Value:
        """One more input; sizes that have a name are free."""
        name = self.name(stem)
        axes = f"[{', '.join(map(str, shape))}]" if shape or dtype == "bool" else ""
        try:
            type_ = self._draft.input(f"{name}: {dtype}{axes}")
        except SourceError as e:
            raise Refused(Draft.said(e)) from None
        self.inputs.append(Value(type_, name))
        return self.inputs[-1]

    # --- names

    def name(self, stem: str) -> str:
        """A name that means nothing yet, as near to `stem` as can be."""
        made = identifier(stem)
        found, k = made, 1
        while self._draft.is_taken(found) or found in _WORDS:
            k += 1
            found = f"{made}_{k}"
        return found

    def size_name(self, stem: str, taken: set[str]) -> str:
        """A name for a free size, unlike those that are taken."""
        found = made = self.name(stem)
        k = 1
        while found in taken:
            k += 1
            found = f"{made}_{k}"
        return found

    def label(self, stem: str) -> str:
        """A label for a layer that no other has."""
        made = identifier(stem)
        found, k = made, 1
        while found in self._labels or found in _WORDS:
            k += 1
            found = f"{made}_{k}"
        self._labels.add(found)
        return found

    # --- statements

    def emit(self, template: str, *operands: Value, stem: str = "h") -> Value:
        """A value made by an expression; `{0}` is its first operand."""
        name = self.name(stem)
        statement = Statement((name,), template, tuple(self.placed(v) for v in operands), self.module)
        self._add(statement, f"{name} = {_filled(statement)}")
        made = self._draft.value(name)
        if isinstance(made, TensorType):
            return Value(made, name)
        self._statements.pop()  # the language knows the number already
        return known(made, "bool" if isinstance(made, bool) else operands[0].dtype)

    def _type(self, name: str) -> TensorType:
        made = self._draft.value(name)
        assert isinstance(made, TensorType)
        return made

    def emit_results(self, template: str, *operands: Value, count: int, stem: str = "h") -> tuple[Value, ...]:
        """Several results of one expression."""
        names: list[str] = []
        for k in range(count):
            base = self.name(f"{stem}_{k + 1}")
            names.append(base if base not in names else f"{base}_{k + 1}")
        statement = Statement(tuple(names), template, tuple(self.placed(v) for v in operands), self.module)
        self._add(statement, f"({', '.join(names)}) = {_filled(statement)}")
        return tuple(Value(self._type(n), n) for n in names)

    def emit_whole(
        self, template: str, *operands: Value, stem: str = "h", names: int = 1, inner: Sequence[str] = ()
    ) -> tuple[Value, ...]:
        """Statements as they are written, such as index notation or a scan; `{r0}` is the first name they make, `{a}` a
        name of theirs that means nothing elsewhere, where `inner` has an `a`."""
        for n in inner:
            template = template.replace(f"{{{n}}}", self.name(n))
        made = [self.name(f"{stem}_{k + 1}" if names > 1 else stem) for k in range(names)]
        for k, n in enumerate(made):
            template = template.replace(f"{{r{k}}}", n)
        statement = Statement(tuple(made), template, tuple(self.placed(v) for v in operands), self.module, whole=True)
        self._add(statement, _filled(statement))
        return tuple(Value(self._type(n), n) for n in made)

    def layer(self, x: Value, label: str, call: str, arrays: dict[str, Array]) -> Value:
        """What a layer of the library makes of x; `arrays` are its parameters and state by their names in it."""
        made = self.label(label)
        y = self.emit(f"{{0}} |> {made}: {call}", x, stem=made)
        self.arrays |= {f"{self.model}.{made}.{n}": a for n, a in arrays.items()}
        if call.startswith("Dense(") and "b" not in arrays:
            self._unbiased[y.name] = len(self._statements) - 1, f"{self.model}.{made}"
        return y

    def untransposed(self, x: Value, order: list[int]) -> tuple[Value, list[int]]:
        """What x is a transposition of, and the order that makes the same of that."""
        if x.name not in self.transposed:
            return x, order
        source, first = self.transposed[x.name]
        return source, [first[axis] for axis in order]

    def add_bias(self, y: Value, bias: Array) -> bool:
        """Give the dense layer that made y a bias, where it is one that has none."""
        if y.name not in self._unbiased:
            return False
        at, path = self._unbiased.pop(y.name)
        s = self._statements[at]
        self._statements[at] = replace(s, template=s.template.replace(", bias = false)", ")"))
        self.arrays[f"{path}.b"] = bias
        return True

    def placed(self, value: Value) -> Value:
        """A value as the text can read it: known numbers are written out, or are arrays of the model."""
        if value.name or value.known is None:
            return value
        learned = value.origin and value.dtype in FLOATS and value.known.size > 1
        short = value.is_symbolic or value.known.size <= MAX_LITERAL or _is_one_number(value.known)
        return value.named(f"({literal(value)})") if short and not learned else self._array(value)

    def _array(self, value: Value) -> Value:
        """Numbers that are trained where they are floats of an initialiser, and otherwise stay what they are."""
        assert value.known is not None
        shape = f"{value.dtype}{list(value.known.shape) if value.shape else '[]'}"
        name = self.name(value.origin or "table")
        if value.origin and value.dtype in FLOATS:
            role, init = ("bias", "= 0") if value.rank < 2 else ("weight", "~ normal(0, 0.02)")
        else:
            role, init = "state", "= false" if value.dtype == "bool" else "= 0"
        statement = Statement((name,), f"{role} {name}: {shape} {init}", (), self.module, whole=True)
        self._add(statement, statement.template)
        self.arrays[f"{self.model}.{name}"] = value.known
        return value.named(name)

    def _add(self, statement: Statement, text: str) -> None:
        try:
            self._draft.add(text)
        except SourceError as e:
            raise Refused(f"`{_shown(text)}` is refused: {Draft.said(e)}") from None
        self._statements.append(statement)

    # --- the end

    def finish(self, results: Iterable[tuple[str, Value]], more: str = "", doc: str = "") -> tuple[str, list[str]]:
        """The text of the file and the names of its results; `more` is what stands behind the model."""
        outputs: list[tuple[str, TensorType]] = []
        for stem, value in results:
            source = self.placed(value)
            name = self.name("y" if MADE_UP.match(stem) else stem)
            self._add(statement := Statement((name,), "{0}", (source,), ()), f"{name} = {_filled(statement)}")
            outputs.append((name, self._type(name)))
        kept = self._live({n for n, _ in outputs})
        lines = _merged(kept, {n for n, _ in outputs})
        signature = ", ".join(f"{v.name}: {_written(v.type)}" for v in self.inputs)
        result = ", ".join(f"{n}: {_written(t)}" for n, t in outputs)
        body = "\n".join(lines)
        text = f"{doc}model {self.model}({signature}) -> ({result}) {{\n{body}\n}}\n{more}"
        source_ = Source(f"{self.model}.nn", text)
        return format(parse(source_), source_), [n for n, _ in outputs]

    def _live(self, wanted: set[str]) -> list[Statement]:
        """The statements that results depend on."""
        kept: list[Statement] = []
        for s in reversed(self._statements):
            if wanted & set(s.names):
                kept.append(s)
                wanted |= {v.name for v in s.operands}
            else:
                for n in s.names:
                    self.arrays.pop(f"{self.model}.{n}", None)
        return kept[::-1]


_WORDS = {
    *keyword.kwlist, *STATEMENTS, "then", "repeat", "when", "training", "until", "over", "true", "false", "model",
    "layer", "fn", "const", "hyper", "export", "train", "test", "optimizer", "case", "expect", "reject", "stop",
    "update", "loss", "params", "weights", "biases", "states", "epoch", "steps",
}  # fmt: skip


def identifier(stem: str) -> str:
    made = re.sub(r"\W+|__+", "_", stem, flags=re.ASCII).strip("_") or "h"
    return made if not made[0].isdigit() else f"h{made}"


def _filled(s: Statement) -> str:
    return _GAP.sub(lambda m: s.operands[int(m[1] or m[2])].name, s.template)


def _written(t: TensorType) -> str:
    return f"{t}" if t.shape or t.dtype != "bool" else "bool[]"


def _shown(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."


def _is_one_number(array: Array) -> bool:
    return array.dtype != object and bool((array == array.flat[0]).all())


def _merged(statements: Sequence[Statement], outputs: set[str]) -> list[str]:
    """Lines, where what is read once, by an expression, stands in it: in front of a pipe always, else where it is short
    and has no layer in it."""
    reads = Counter(
        s.operands[int(m[1] or m[2])].name for s in statements for m in _GAP.finditer(s.template) if s.operands
    )
    waiting: dict[str, tuple[str, bool]] = {}  # expressions that one statement below reads, and whether they are pipes
    held: set[str] = _readable_later(statements, reads, outputs)
    lines: list[str] = []
    for s in statements:

        def fill(m: re.Match[str], s: Statement = s) -> str:
            name = s.operands[int(m[1] or m[2])].name
            return f"({waiting.pop(name)[0]})" if name in waiting else name

        text = _GAP.sub(fill, s.template)
        if s.whole:
            lines.append(text)
        elif s.names[0] in held:
            waiting[s.names[0]] = text, s.is_pipe
        else:
            target = s.names[0] if len(s.names) == 1 else f"({', '.join(s.names)})"
            lines.append(f"{target} = {text}")
    return lines


def _readable_later(statements: Sequence[Statement], reads: Counter[str], outputs: set[str]) -> set[str]:
    """The names whose expressions stand where they are read."""
    made = {s.names[0]: s for s in statements if len(s.names) == 1 and not s.whole}
    held: set[str] = set()
    lengths: dict[str, int] = {}
    for s in statements:
        length = len(s.template)
        for m in _GAP.finditer(s.template):
            name = s.operands[int(m[1] or m[2])].name
            source = made.get(name)
            if source is None or s.whole or reads[name] != 1 or name in outputs or m[1] is None:
                continue
            heads = (s.is_pipe or s.template == "{0}") and m[1] == "0"
            if heads or (lengths[name] <= MAX_INLINE and ": " not in source.template):
                held.add(name)
                length += lengths[name]
        for name in s.names:
            lengths[name] = length
    return held
