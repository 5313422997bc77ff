"""Blocks that are repeated, as layers of their own.

In: the statements of a model, each with the module it stands in. Two modules are the same block where their statements
are the same but for names and whole numbers; numbers that differ become parameters of the layer. Out: the texts of
layers, and the statements with a call in each block's place. A block reads one value from around it and makes one that
others read. Where three calls or more stand in a row that are alike, they become a `repeat`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ....compiler.types.sizes import Size
from ....compiler.types.tensors import TensorType
from ...call.column import Array
from .statements import NAME, Statement, lines, unlike
from .values import Value

_NUMBER = re.compile(r"(?<![\w.{])(?<!e-)(?<!e\+)\d+(?![\w.}])")
_LABEL = re.compile(r"\|> (\w+): ")
_LEAST = 3  # statements of a block, and calls in a `repeat`
_FIRST = {"Dense": "out", "Conv": "filters", "ConvTranspose": "filters", "DepthwiseConv": "kernel"}  # arguments

TypeOf = Callable[[str], TensorType]


@dataclass(frozen=True, slots=True)
class Block:
    """The statements of a module, from `first` up to `last`; `body` has them with names of its own, `x` for what it
    reads; `holes` are the whole numbers in the order of the text."""

    module: tuple[str, ...]
    first: int
    last: int
    reads: Value
    result: Value
    body: tuple[Statement, ...]
    key: tuple[str, ...]
    holes: tuple[int, ...]

    @property
    def label(self) -> str:
        return "_".join(self.module)


def outlined(
    statements: Sequence[Statement], outputs: set[str], type_of: TypeOf, labels: set[str]
) -> tuple[list[str], list[Statement]]:
    """The texts of layers, and the statements that call them."""
    found = [b for m in _modules(statements) if (b := _block(statements, m, outputs, type_of)) is not None]
    alike: dict[tuple[str, ...], list[Block]] = {}
    for b in found:
        alike.setdefault(b.key, []).append(b)
    groups = sorted(
        (g for g in alike.values() if len(g) > 1), key=lambda g: (len(g) - 1) * (g[0].last - g[0].first), reverse=True
    )
    taken: set[int] = set()
    chosen: list[list[Block]] = []
    for group in groups:
        free = [b for b in group if taken.isdisjoint(range(b.first, b.last)) and b.label not in labels]
        if len(free) > 1:
            chosen.append(free)
            taken |= {k for b in free for k in range(b.first, b.last)}
    texts: list[str] = []
    calls: list[tuple[Block, str]] = []
    names: set[str] = set()
    for blocks in sorted(chosen, key=lambda g: g[0].first):
        name = _unlike(_layer_name(blocks[0].module), names)
        text, arguments = _layer(name, blocks)
        texts.append(text)
        calls += [(b, name + a) for b, a in zip(blocks, arguments, strict=True)]
    return texts, _repeated(_called(statements, calls), outputs, labels)


def _modules(statements: Sequence[Statement]) -> list[tuple[str, ...]]:
    """Every module that statements stand in, those around first."""
    return sorted({s.module[:k] for s in statements for k in range(1, len(s.module) + 1)}, key=len)


def _block(
    statements: Sequence[Statement], module: tuple[str, ...], outputs: set[str], type_of: TypeOf
) -> Block | None:
    inside = [k for k, s in enumerate(statements) if s.module[: len(module)] == module]
    first, last = inside[0], inside[-1] + 1
    run = statements[first:last]
    if len(run) < _LEAST or any(s.module and s.module[: len(module)] != module for s in run):
        return None
    made = {n for s in run for n in s.names}
    read = dict.fromkeys(v.name for s in run for v in s.operands if v.name not in made and not v.name.startswith("("))
    later = [n for s in statements[last:] for n in (v.name for v in s.operands) if n in made]
    results = dict.fromkeys([*later, *(n for n in made if n in outputs)])
    if len(read) != 1 or len(results) != 1 or not any(s.label for s in run):
        return None
    (reads,), (result,) = read, results
    sizes = {str(d): f"size(x, {k})" for k, d in reversed(list(enumerate(type_of(reads).shape))) if isinstance(d, Size)}
    local = _names(run, module, {reads: "x"}, result)
    words = {w for s in run if s.whole for w in NAME.findall(s.template)} - local.keys()
    if words & set(local.values()):  # what an index or a carried value is called there
        return None
    body = tuple(_renamed(s, module, local, sizes) for s in run)
    texts = [t for s in body for t in _texts(s)]
    holes = tuple(int(n) for t in texts for n in _NUMBER.findall(t))
    key = (*(_NUMBER.sub("#", t) for t in texts), local[result])
    return Block(module, first, last, Value(type_of(reads), reads), Value(type_of(result), result), body, key, holes)


def _texts(s: Statement) -> list[str]:
    """All of a statement that may have numbers."""
    return [*s.names, s.template, *(v.name for v in s.operands)]


def _names(run: Sequence[Statement], module: tuple[str, ...], local: dict[str, str], result: str) -> dict[str, str]:
    """Names of a block's own: as its layers are called within it, y for its result, else h."""
    for s in run:
        for n in (*s.names, *s.inner):
            named = s.label or (n if n in s.arrays else "y" if n == result else "h")
            stem = _within(named, module) if s.label else named
            local[n] = _unlike(stem if not stem[0].isdigit() else f"h{stem}", set(local.values()))
    return local


def _within(label: str, module: tuple[str, ...]) -> str:
    """What a layer is called within a module."""
    rest = label.removeprefix("_".join(module) + "_")
    return rest if not rest[0].isdigit() else f"part_{rest}"


def _renamed(s: Statement, module: tuple[str, ...], local: Mapping[str, str], sizes: Mapping[str, str]) -> Statement:
    label = _within(s.label, module) if s.label else ""
    template = _LABEL.sub(f"|> {label}: ", s.template) if label else s.template
    names = {**sizes, **(local if s.whole else {})}
    template = NAME.sub(lambda m: names.get(m[0], m[0]), template)
    operands = tuple(v.named(local.get(v.name, NAME.sub(lambda m: sizes.get(m[0], m[0]), v.name))) for v in s.operands)
    arrays = {local.get(n, n): a for n, a in s.arrays.items()} if not s.label else s.arrays
    return Statement(tuple(local[n] for n in s.names), template, operands, s.module, s.whole, label, arrays)


def _layer_name(module: tuple[str, ...]) -> str:
    """A name for a layer: as the innermost module is called that has a word for a name."""
    word = next((m for m in reversed(module) if not m.isdigit()), "block")
    stem = re.sub(r"\d+$", "", word) or word
    stem = stem[:-1] if re.search(r"[^s]s$", stem) else stem
    name = "".join(p.capitalize() for p in stem.split("_"))
    return name if "block" in stem.lower() else f"{name}Block"


def _unlike(name: str, taken: set[str]) -> str:
    found = unlike(name, taken.__contains__)
    taken.add(found)
    return found


def _layer(name: str, blocks: Sequence[Block]) -> tuple[str, list[str]]:
    """The text of a layer that all blocks are, and the arguments of each, `(64, 2)`."""
    parameters: dict[tuple[int, ...], str] = {}  # by the numbers that they stand for, of each block
    columns = iter(zip(*(b.holes for b in blocks), strict=True))
    own = {"x", *(n for s in blocks[0].body for n in s.names)}

    def given(text: str) -> str:
        """The text with parameters for what is not the same number in all blocks."""

        def hole(m: re.Match[str]) -> str:
            column = next(columns)
            if len(set(column)) == 1:
                return m[0]
            if column not in parameters:
                parameters[column] = _unlike(_meaning(text[: m.start()]), own)
            return parameters[column]

        return _NUMBER.sub(hole, text)

    body = []
    for s in blocks[0].body:
        _, template, *operands = [given(t) for t in _texts(s)][len(s.names) - 1 :]
        values = tuple(v.named(n) for v, n in zip(s.operands, operands, strict=True))
        body.append(replace(s, template=template, operands=values))
    made = blocks[0].key[-1]
    listed = "".join(f", {p}: int" for p in parameters.values())
    inside = "\n".join([*lines(body, {made}), f"return {made}"])
    listed_of = [", ".join(str(column[k]) for column in parameters) for k in range(len(blocks))]
    arguments = [f"({a})" if a else "" for a in listed_of]
    return f"layer {name}(x{listed}) {{\n{inside}\n}}", arguments


def _meaning(before: str) -> str:
    """What a number may be called that stands behind this text."""
    if named := re.search(r"(\w+) = \[?\[?(\d+, )?$", before):
        return named[1]
    call = re.search(r"(\w+)\($", before)
    return _FIRST.get(call[1], "n") if call else "n"


def _called(statements: Sequence[Statement], calls: Sequence[tuple[Block, str]]) -> list[Statement]:
    """The statements with a call in the place of each block."""
    made: list[Statement] = []
    at = 0
    for b, call in sorted(calls, key=lambda c: c[0].first):
        made += statements[at : b.first]
        arrays: dict[str, Array] = {}
        for s in b.body:
            arrays |= s.owned
        template = f"{{0}} |> {b.label}: {call}"
        made.append(Statement((b.result.name,), template, (b.reads,), b.module, False, b.label, arrays))
        at = b.last
    return [*made, *statements[at:]]


def _repeated(statements: Sequence[Statement], outputs: set[str], labels: set[str]) -> list[Statement]:
    """Calls in a row that are alike, each of which reads only what the one before it makes, as a `repeat`; but where
    one of `labels`, or of another call, is a name that the language gives to its turns."""
    taken = labels | {s.label for s in statements}
    reads = Counter(n for s in statements for n, _ in s.gaps)
    counts: Counter[str] = Counter()
    made: list[Statement] = []
    at = 0
    while at < len(statements):
        s = statements[at]
        end = at + 1
        while (
            end < len(statements) and _call(s) and _call(statements[end]) == _call(s)
            and statements[end].operands[0].name == statements[end - 1].names[0]
            and reads[statements[end - 1].names[0]] == 1 and statements[end - 1].names[0] not in outputs
        ):  # fmt: skip
            end += 1
        run, call = statements[at:end], _call(s)
        stem = call.partition("(")[0].lower()
        turns = [f"{stem}_{k}" for k in range(counts[stem] + 1, counts[stem] + len(run) + 1)]
        if len(run) < _LEAST or taken.difference(r.label for r in run) & set(turns):
            made += run
            at = end
            continue
        counts[stem] += len(run)
        arrays = {f"{turn}.{n}": a for turn, r in zip(turns, run, strict=True) for n, a in r.arrays.items()}
        name = run[-1].names[0]
        text = f"{name} = {{0}}\nrepeat {len(run)} {{ {name} = {name} |> {call} }}"
        made.append(Statement((name,), text, s.operands, s.module[:-1], True, "", arrays))
        at = end
    return made


def _call(s: Statement) -> str:
    """The call of a layer of the text's own; "" for any other statement."""
    head = f"{{0}} |> {s.label}: "
    call = s.template.removeprefix(head)
    return call if s.label and call != s.template and "." in next(iter(s.arrays), "") else ""
