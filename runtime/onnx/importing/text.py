"""The text of a model, written statement by statement.

A statement is a template with the values that stand in its gaps: `"{0} |> relu"`. It is elaborated as it is added, so
its result has a type, and a template that the language refuses is a refusal of the node that asked for it. At the end,
what is read once stands where it is read, as far as that reads well, and the formatter of the language lays it out.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ....compiler.elaborate.draft import Draft
from ....compiler.elaborate.program import Program
from ....compiler.settings import Settings
from ....compiler.types.sizes import Dim, symbol
from ....compiler.types.tensors import TensorType
from ....dsl.errors import SourceError
from ....dsl.format import format
from ....dsl.parser import parse
from ....dsl.source import Source
from ....dsl.tokens import STATEMENTS
from ...call.column import Array
from .blocks import outlined
from .refusals import Refused
from .statements import NAME, Statement, lines, live, unlike
from .values import MAX_LITERAL, Value, known, literal, sizes

MADE_UP = re.compile(r"onnx::|val_\d+$|\d*$|.*/")  # names that exporters give to what has none


Turn = Callable[["Text", Value, list[Value]], tuple[list[Value], list[Value]]]


class Text:
    """A model under construction; or the turn of a loop, which reads values of the text `around`."""

    def __init__(self, model: str, around: Text | None = None):
        self.model = model
        self.around = around
        self._captured: dict[str, Value] = {}  # what is read from around
        self.module: tuple[str, ...] = ()  # what is written now is of this module of the network
        self._unbiased: dict[str, int] = {}  # of what a dense layer without a bias makes: its statement
        self.transposed: dict[str, tuple[Value, list[int]]] = {}  # of what a transposition makes: of what, its order
        self.inputs: list[Value] = []
        self._placed_arrays: dict[int, tuple[str, Array]] = {}  # by identity: what each is called, and itself
        self.owners: Counter[str] = Counter()  # how many layers each initialiser is in
        self.folded = 0  # numbers that were made of known ones
        self._draft = Draft(model)
        self._statements: list[Statement] = []
        self._labels: set[str] = set() if around is None else around._labels
        self._sizes: set[str] = set() if around is None else around._sizes
        self._inside: set[str] = set() if around is None else around._inside  # names that turns of loops have
        if around is not None:
            self.module = around.module
            for size in self._sizes:
                self._draft.input(f"{self.name(f'of_{size}')}: f32[{size}]")

    def input(self, stem: str, dtype: str, shape: Sequence[Dim | str]) -> Value:
        """One more input; sizes that have a name are free."""
        self.inputs.append(self._declare(self.name(stem), dtype, shape))
        if self.around is not None:
            self._inside.add(self.inputs[-1].name)
        return self.inputs[-1]

    def _declare(self, name: str, dtype: str, shape: Sequence[Dim | str]) -> Value:
        axes = f"[{', '.join(map(str, shape))}]" if shape or dtype == "bool" else ""
        try:
            return Value(self._draft.input(f"{name}: {dtype}{axes}"), name)
        except SourceError as e:
            raise Refused(f"`{name}: {dtype}{axes}` is no input: {Draft.said(e)}") from None

    # --- names

    def name(self, stem: str) -> str:
        """A name that means nothing yet, as near to `stem` as can be."""
        return unlike(identifier(stem), self._is_taken)

    def _is_taken(self, name: str) -> bool:
        own = name in self._sizes or name in self._inside or name == self.model or self._draft.is_taken(name)
        outside = self.around is not None and self.around._is_taken(name)
        return own or outside or name in _WORDS or _INDEX.fullmatch(name) is not None

    def size_name(self, stem: str) -> str:
        """A name for a free size that no other has."""
        found = self.name(stem)
        self._sizes.add(found)
        return found

    def label(self, stem: str) -> str:
        """A label for a layer that no other has."""
        found = unlike(identifier(stem), lambda name: name in self._labels or name in _WORDS)
        self._labels.add(found)
        return found

    # --- statements

    def emit(self, template: str, *operands: Value, stem: str = "h", label: str = "", **arrays: Array) -> Value:
        """A value made by an expression; `{0}` is its first operand. `arrays` are those of a layer in it, by their
        names in it."""
        name = self.name(stem)
        self._add(Statement((name,), template, self._placed(operands), self.module, False, label, arrays))
        made = self._draft.value(name)
        if isinstance(made, TensorType):
            return Value(made, name)
        self._statements.pop()  # the language knows the number already
        return known(made, "bool" if isinstance(made, bool) else operands[0].dtype)

    def _placed(self, operands: Sequence[Value]) -> tuple[Value, ...]:
        return tuple(self.placed(v) for v in operands)

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
        self._add(Statement(tuple(names), template, self._placed(operands), self.module))
        return tuple(Value(self._type(n), n) for n in names)

    def emit_whole(
        self, template: str, *operands: Value, stem: str = "h", names: int = 1, inner: Sequence[str] = ()
    ) -> tuple[Value, ...]:
        """Statements as they are written, such as index notation or a scan; `{r0}` is the first name they make, `{a}` a
        name of theirs that means nothing elsewhere, where `inner` has an `a`."""
        hidden = {n: self.name(n) for n in inner}
        for n, name in hidden.items():
            template = template.replace(f"{{{n}}}", name)
        made = [self.name(f"{stem}_{k + 1}" if names > 1 else stem) for k in range(names)]
        for k, n in enumerate(made):
            template = template.replace(f"{{r{k}}}", n)
        own = tuple(hidden.values())
        self._add(Statement(tuple(made), template, self._placed(operands), self.module, whole=True, inner=own))
        return tuple(Value(self._type(n), n) for n in made)

    def require(self, condition: str, why: str) -> None:
        """A condition on sizes, which is checked before anything is computed."""
        self._add(Statement((), f'require({condition}, "{why}")', whole=True))

    def layer(self, x: Value, label: str, call: str, arrays: dict[str, Array]) -> Value:
        """What a layer of the library makes of x; `arrays` are its parameters and state by their names in it."""
        made = self.label(label)
        y = self.emit(f"{{0}} |> {made}: {call}", x, stem=made, label=made, **arrays)
        if call.startswith("Dense(") and "b" not in arrays:
            self._unbiased[y.name] = len(self._statements) - 1
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
        at = self._unbiased.pop(y.name)
        s = self._statements[at]
        template = s.template.replace(", bias = false)", ")")
        self._statements[at] = replace(s, template=template, arrays={**s.arrays, "b": bias})
        return True

    def placed(self, value: Value) -> Value:
        """A value as the text can read it: known numbers are written out, or are arrays of the model."""
        if value.name or value.known is None:
            return self._capture(value)
        learned = value.is_learned
        short = value.is_symbolic or value.known.size <= MAX_LITERAL or _is_one_number(value.known)
        large = value.dtype == "i64" and not value.is_symbolic and _exceeds_i32(value.known)
        if short and not learned and not large:  # whole numbers that are written are i32 until they are converted
            return value.named(f"({literal(value)})")
        return self._array(value) if self.around is None else self._capture(self.around.placed(value))

    def _capture(self, value: Value) -> Value:
        """A value of the text around is an input of a turn."""
        is_name = value.name.isidentifier() and value.name not in _WORDS  # and no number
        if self.around is None or not is_name or self._draft.is_taken(value.name):
            return value
        self._captured[value.name] = self.around.placed(value)
        self._declare(value.name, value.dtype, value.shape)
        return value

    def scan(self, count: Dim, begin: Sequence[Value], turn: Turn) -> tuple[list[Value], list[Value]]:
        """A loop of `count` turns: what is carried in the end, and what the turns collect. `turn` writes one, told its
        number, a size, and what is carried; it gives what is carried on, and what is collected."""
        inner = Text(self.model, self)
        index = "tuvw"[min(inner._depth, 4) - 1]
        inner._declare(inner.name(f"of_{index}"), "f32", (index,))  # a size as others are
        carried = [inner.input("carried", v.dtype, v.shape) for v in begin]
        after, parts = turn(inner, known(sizes([symbol(index)]).reshape(()), "i64"), list(carried))
        results = [inner.emit("{0}", v) for v in (*after, *parts)]
        self._inside |= {n for s in inner._statements for n in s.names}
        body = live(inner._statements, {v.name for v in results})
        collected = [self.name("collected") for _ in parts]
        names = [*(v.name for v in carried), *collected]
        ends = [f"{n} = {v.name}" for n, v in zip(names, results, strict=False)][: len(carried)]
        ends += [f"{n}[{index}] = {v.name}" for n, v in zip(collected, results[len(carried) :], strict=True)]
        inside = "\n".join([*lines(body, {v.name for v in results}), *ends])
        read = [*begin, *inner._captured.values()]
        places = {n: f"{{{k}}}" for k, n in enumerate(inner._captured, len(begin))}
        inside = NAME.sub(lambda m: places.get(m[0], m[0]), inside)
        starts = [f"{n.name} = {{{k}}}" for k, n in enumerate(carried)]
        template = "\n".join([*starts, f"scan {index} in 0..{count} {{", inside, "}"])
        arrays = {path: a for s in body for path, a in s.owned.items()}
        own = tuple(n for s in body for n in (*s.names, *s.inner))
        self._add(Statement(tuple(names), template, self._placed(read), self.module, True, "", arrays, own))
        made = [Value(self._type(n), n) for n in names]
        return made[: len(carried)], made[len(carried) :]

    @property
    def _depth(self) -> int:
        """How many loops are around."""
        return 0 if self.around is None else self.around._depth + 1

    def _array(self, value: Value) -> Value:
        """Numbers that are trained where they are floats of an initialiser, and otherwise stay what they are."""
        assert value.known is not None
        role = "state" if not value.is_learned else "bias" if value.rank < 2 else "weight"
        if id(value.known) not in self._placed_arrays:  # what is read twice is declared once
            made = self.variable(role, value.origin or "table", value.dtype, value.known)
            self._placed_arrays[id(value.known)] = made.name, value.known
        return value.named(self._placed_arrays[id(value.known)][0])

    def variable(self, role: str, stem: str, dtype: str, array: Array) -> Value:
        """A parameter or state of the model itself that begins with these numbers."""
        name = self.name(stem)
        init = {"bias": "= 0", "weight": "~ normal(0, 0.02)"}.get(role, "= false" if dtype == "bool" else "= 0")
        type_ = TensorType(dtype, array.shape)
        shape = f"{type_}" if array.ndim else f"{dtype}[]"
        template = f"{role} {name}: {shape} {init}"
        self._add(Statement((name,), template, (), self.module, whole=True, arrays={name: array}))
        return Value(type_, name)

    def _add(self, statement: Statement) -> None:
        try:
            self._draft.add(statement.text)
        except SourceError as e:
            raise Refused(f"`{_shown(statement.text)}` is refused: {Draft.said(e)}") from None
        self._statements.append(statement)

    # --- the end

    def finish(self, results: Iterable[tuple[str, Value]], doc: str = "") -> Written:
        """The end of the model. Blocks that are repeated become layers of their own."""
        outputs: list[Value] = []
        for stem, value in results:
            self.module = ()
            name = self.name("y" if MADE_UP.match(stem) else stem)
            self._add(Statement((name,), "{0}", (self.placed(value),)))
            outputs.append(Value(self._type(name), name))
        doc += "".join(
            f"# `{n}` was one array for {k} layers: each has its own here, and training takes them apart.\n"
            for n, k in self.owners.items()
            if k > 1
        )
        flat = live(self._statements, {v.name for v in outputs})
        layers, body = outlined(flat, {v.name for v in outputs}, self._type, set(self._labels))
        with suppress(SourceError):
            if layers and _holds(written := self._written(body, outputs, doc, layers)):
                return written
        return self._written(flat, outputs, doc, [])

    def _written(self, body: Sequence[Statement], outputs: list[Value], doc: str, layers: Sequence[str]) -> Written:
        signature = ", ".join(f"{v.name}: {_type_text(v.type)}" for v in self.inputs)
        result = ", ".join(f"{v.name}: {_type_text(v.type)}" for v in outputs)
        made = "\n".join(lines(body, {v.name for v in outputs}))
        head = "\n\n".join(layers) + "\n\n" if layers else ""
        head += f"model {self.model}({signature}) -> ({result})"
        text = f"{doc}{head} {{\n{made}\n}}\n"
        arrays = {f"{self.model}.{path}": a for s in body for path, a in s.owned.items()}
        return Written(formatted(text), arrays, tuple(outputs))


def formatted(text: str) -> str:
    """A text as the formatter of the language lays it out. Raises SourceError."""
    source = Source("written", text)
    return format(parse(source), source)


@dataclass(frozen=True, slots=True)
class Written:
    """A text, the arrays of its model by path, and the model's results."""

    text: str
    arrays: Mapping[str, Array]
    outputs: tuple[Value, ...]


def _holds(written: Written) -> bool:
    """Whether the variables of a text are the arrays. Raises SourceError where it is no program."""
    variables = Program(Source("written", written.text), Settings(), may_roll=False).variables
    shapes = {path: v.type.shape for path, v in variables.items() if v.role in ("weight", "bias", "state")}
    return shapes == {path: a.shape for path, a in written.arrays.items()}


_INDEX = re.compile(r"[b-w]|i_[a-z]2?")  # what templates call indices
_WORDS = {
    *keyword.kwlist, *STATEMENTS, "then", "repeat", "when", "training", "until", "over", "true", "false", "model",
    "layer", "fn", "const", "hyper", "export", "train", "test", "optimizer", "case", "expect", "reject", "stop",
    "update", "loss", "params", "weights", "biases", "states", "epoch", "steps",
}  # fmt: skip


def identifier(stem: str) -> str:
    made = re.sub(r"\W+|__+", "_", stem, flags=re.ASCII).strip("_") or "h"
    return made if not made[0].isdigit() else f"h{made}"


def _type_text(t: TensorType) -> str:
    return f"{t}" if t.shape or t.dtype != "bool" else "bool[]"


def _shown(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."


def _exceeds_i32(array: Array) -> bool:
    return bool(((array >= 2**31) | (array < -(2**31))).any())


def _is_one_number(array: Array) -> bool:
    return array.dtype != object and bool((array == array.flat[0]).all())
