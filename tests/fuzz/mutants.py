"""Shipped and golden `.nn` files with a few mistakes in them: each is checked, and some that pass are compiled and run.

Whatever the text, the answer is a program or a typed error, soon: never a signal, a raw exception, an internal error.
"""

from __future__ import annotations

import random
import re
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nnc
from nnc.compiler.graph.interpret import whole
from nnc.compiler.session import Native, Session
from nnc.compiler.settings import Settings
from nnc.compiler.types.sizes import symbols
from nnc.dsl.errors import InternalError, NncError
from nnc.dsl.source import Source
from nnc.runtime.api import open_program

from .judge import TooLong, Verdict, code_of, limited, place, wording
from .machine import call
from .program import Program, arguments

ROOT = Path(nnc.__file__).parent
GOLDEN = Path(__file__).parents[1] / "golden"
CHECK_SECONDS, COMPILE_SECONDS = 10.0, 20.0  # of CPU; the largest network that ships takes a part of that
LARGEST_GRAPH = 300  # nodes of what is compiled: the time of larger ones is known from the models' own tests
LARGEST_BUFFER = 10_000_000
TOKEN = re.compile(r"[^\W\d]\w*|\d+(?:\.\d+)?(?:e-?\d+)?|\s+|\S")
NUMBERS = ("0", "-1", "1", "2147483648", "-2147483648", "9223372036854775808", "1e400", "99999999999999999999999999",
           "0.5", "1e-400", "3", "65536")  # fmt: skip
CHARACTERS = "(){}[]=,.:;|>~^@#*/+-%\"'\\\n\t 0aeNxλ\x00é"
HEAVY = frozenset(
    f"{name}.nn"
    for name in """alexnet blocks convolutional_autoencoder googlenet gpt lenet5 lenet5_1998
resnet resnet20 squeezenet vgg""".split()
)  # each takes as long to check as ten others
Edit = Callable[[random.Random, list[str]], None]


@cache
def corpus() -> tuple[tuple[str, str], ...]:
    """(where it is from, text) of all files that a mutant may be made of."""
    shipped = [p for room in ("models", "dsl/std") for p in sorted((ROOT / room).glob("*.nn"))]
    files = [(p.name, p.read_text("utf-8")) for p in shipped]
    for stage in ("errors", "format", "parse", "entry"):
        for p in sorted((GOLDEN / stage).glob("*.case")):
            text = p.read_text("utf-8").partition("\n")[2].partition("## expect\n")[0]
            files.append((f"{stage}/{p.name}", re.sub(r" *#~.*", "", text)))
    return tuple(files)


# --- edits: of a list of tokens, or of one of characters -------------------------------------------------------------


def delete(rng: random.Random, parts: list[str]) -> None:
    at = rng.randrange(len(parts))
    del parts[at : at + rng.choice((1, 1, 2, 5))]


def duplicate(rng: random.Random, parts: list[str]) -> None:
    at = rng.randrange(len(parts))
    end = at + rng.choice((1, 1, 3, 10))
    parts[at:at] = parts[at:end]


def swap(rng: random.Random, parts: list[str]) -> None:
    a, b = rng.randrange(len(parts)), rng.randrange(len(parts))
    parts[a], parts[b] = parts[b], parts[a]


def number(rng: random.Random, parts: list[str]) -> None:
    places = [k for k, t in enumerate(parts) if t[:1].isdigit()]
    if places:
        parts[rng.choice(places)] = rng.choice(NUMBERS)


def rename(rng: random.Random, parts: list[str]) -> None:
    places = [k for k, t in enumerate(parts) if t.isidentifier()]
    if places:
        parts[rng.choice(places)] = parts[rng.choice(places)]


def insert(rng: random.Random, parts: list[str]) -> None:
    parts.insert(rng.randrange(len(parts) + 1), rng.choice(CHARACTERS))


EDITS: tuple[Edit, ...] = (delete, duplicate, swap, number, number, number, rename, rename, insert)


def mutant(seed: int, index: int) -> tuple[str, str]:
    """What it was made of, and the text."""
    rng = random.Random(f"mutant {seed} {index}")
    right = rng.random() < 0.8
    heavy = rng.random() < 0.05
    files = [(n, t) for n, t in corpus() if right != n.startswith("errors/") and (heavy or n not in HEAVY)]
    name, text = rng.choice(files)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        parts = TOKEN.findall(text) if rng.random() < 0.8 else list(text)
        if parts:
            rng.choice(EDITS)(rng, parts)
        text = "".join(parts)
    return name, text


# --- verdicts --------------------------------------------------------------------------------------------------------


def judged_mutant(seed: int, index: int, compiled: float = 0.4) -> Verdict:
    """The verdict on one mutant; a share `compiled` of those that pass is compiled and run."""
    _, text = mutant(seed, index)
    run = random.Random(f"run {seed} {index}").random() < compiled
    try:
        with limited(CHECK_SECONDS):
            session, _ = open_program(Source("m.nn", text), Settings(cache=False))
            errors = session.program.check()
        if errors:
            return Verdict("refused", errors[0].code)
        if run:
            _run(session)
            return Verdict("ok", "run")
    except InternalError as e:
        return Verdict("failed", f"internal: {wording(e.diagnostics[0].message)}", str(e))
    except NncError as e:
        str(e)
        return Verdict("refused", e.code, "")
    except TooLong as e:
        return Verdict("failed", f"slow: {place(e)}", traceback.format_exc(limit=-6))
    except Exception as e:  # a raw exception is what we look for
        return Verdict("failed", f"raised: {type(e).__name__} at {place(e)}", traceback.format_exc(limit=-6))
    return Verdict("ok", "checked")


def _run(session: Session) -> None:
    """Every small entry on small random arguments; what needs much memory is compiled only."""
    for entry in session.manifest.entries:
        graph = session.program.graph(entry)
        if len(graph) > LARGEST_GRAPH:
            continue
        code = _code(session, entry)
        s = code.signature
        variables = {path: d.type for path, d in session.program.variables.items() if path in s.variables}
        ports = [*((p.name, p.type) for p in s.inputs), *variables.items()]
        named = set().union(*(symbols(n) for _, t in ports for n in t.shape), s.sizes)
        sizes = dict.fromkeys(named, 2)
        sizes_of = [t.nbytes for _, t in ports] + [p.type.nbytes for p in s.outputs] + [s.arena]
        if max(abs(whole(n, sizes)) for n in sizes_of) > LARGEST_BUFFER or _long(session.source.text):
            continue
        program = Program(session.source.text)
        inputs = arguments([(p.name, p.type) for p in s.inputs], sizes, program)
        call(code, inputs, arguments(variables.items(), sizes, program), sizes)


def _code(session: Session, entry: str) -> Native:
    with limited(COMPILE_SECONDS):
        return code_of(session, session.stages(entry))


def _long(text: str) -> bool:
    """Whether a loop may have very many turns, which is no fault."""
    return any(int(n) > 100_000 for n in re.findall(r"\d+", text))
