"""Models that ship with mistakes in them: is each told, as it is told alone, and nothing that none of them caused?

A mistake is made in one statement, or in one line of a signature, and must be an error by itself. Two in different
statements of one file are then made together. Lines are never moved, so an error is known by its code and line.
`python -m tests.fuzz.mistakes --pairs 200` says how often both are told, and of which kinds are those that are not.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nnc
from nnc.dsl.errors import NncError
from nnc.runtime.check.diagnose import diagnose

MODELS = Path(nnc.__file__).parent / "models"
Error = tuple[str, int]  # code and line
Edit = Callable[[random.Random, str], str]  # of a line
_TOKEN = re.compile(r'"[^"\n]*"|[^\W\d]\w*|\d+(?:\.\d+)?(?:e-?\d+)?|\|>|:=|=>|->|==|!=|<=|>=|\.\.|//|\S')
_KEYWORDS = """hyper const fn layer model optimizer train export test weight bias state share scan metric repeat return
when if expect case gradcheck""".split()
_RESERVED = (*_KEYWORDS, *"""and or not true false in else then until within training stop over with minimize import
from update reject""".split())  # fmt: skip


def _spots(line: str, wanted: Callable[[str], bool]) -> list[re.Match[str]]:
    return [m for m in _TOKEN.finditer(line) if wanted(m[0])]


def _replace(line: str, m: re.Match[str], text: str) -> str:
    return line[: m.start()] + text + line[m.end() :]


def _misspelt(rng: random.Random, word: str) -> str:
    k = rng.randrange(len(word))
    return rng.choice((word[:k] + word[k + 1 :], word[: k + 1] + word[k:], word + "s")) or "q"


def wrong_name(rng: random.Random, line: str) -> str:
    m = rng.choice(_spots(line, lambda t: t.isidentifier() and t not in _RESERVED))
    return _replace(line, m, _misspelt(rng, m[0]))


def wrong_keyword(rng: random.Random, line: str) -> str:
    m = rng.choice(_spots(line, lambda t: t in _KEYWORDS))
    return _replace(line, m, _misspelt(rng, m[0]))


def wrong_size(rng: random.Random, line: str) -> str:
    m = rng.choice(_spots(line, str.isdigit))
    return _replace(line, m, str(int(m[0]) + rng.choice((1, 2, 7))))


def wrong_type(rng: random.Random, line: str) -> str:
    m = rng.choice(_spots(line, lambda t: t in ("f32", "i32", "bool", "int", "float", "fn", "str")))
    return _replace(line, m, rng.choice([t for t in ("f32", "i32", "bool", "int", "f23", "tensor") if t != m[0]]))


def wrong_operator(rng: random.Random, line: str) -> str:
    m = rng.choice(
        _spots(line, lambda t: t in ("+", "-", "*", "/", "@", "==", "|>", "=", "^", ":=", "->", "=>", "<", ">"))
    )
    return _replace(line, m, rng.choice([t for t in ("+", "@", "==", "=", "|>", "**", "and", ">", "..") if t != m[0]]))


def argument(line: str) -> Iterator[tuple[int, int]]:
    """Where the arguments of calls stand."""
    for call in re.finditer(r"\w\(", line):
        depth, first = 0, call.end()
        for k in range(call.end(), len(line)):
            if line[k] in "([":
                depth += 1
            elif line[k] in ")]" and depth:
                depth -= 1
            elif line[k] in ",)" and not depth:
                yield first, k
                first = k + 1
                if line[k] == ")":
                    break


def missing_argument(rng: random.Random, line: str) -> str:
    start, end = rng.choice(list(argument(line)))
    return (
        re.sub(r"\(, ?", "(", line[:start] + line[end:]) if line[start - 1] == "(" else line[: start - 1] + line[end:]
    )


def extra_argument(rng: random.Random, line: str) -> str:
    _, end = rng.choice(list(argument(line)))
    return line[:end] + rng.choice((", 3", ', "a"', ", q = 1")) + line[end:]


def lost_bracket(rng: random.Random, line: str) -> str:
    m = rng.choice(_spots(line, lambda t: t in "()[]{}"))
    return _replace(line, m, "")


def more_bracket(rng: random.Random, line: str) -> str:
    m = rng.choice(_spots(line, lambda t: True))
    return line[: m.end()] + rng.choice("()[]") + line[m.end() :]


def lost_token(rng: random.Random, line: str) -> str:
    return _replace(line, rng.choice(_spots(line, lambda t: True)), "")


def lost_line(rng: random.Random, line: str) -> str:
    """The statement or the declaration is not there."""
    if line.rstrip().endswith(("{", ",", "(")) or line.strip() == "}":
        raise IndexError
    return ""


def foreign_sign(rng: random.Random, line: str) -> str:
    m = rng.choice(_spots(line, lambda t: True))
    return line[: m.end()] + rng.choice((" ;", " &", " ?", ' "', " $", " 3x")) + line[m.end() :]


EDITS: tuple[Edit, ...] = (
    wrong_name, wrong_name, wrong_keyword, wrong_size, wrong_type, wrong_operator, missing_argument, extra_argument,
    lost_bracket, more_bracket, lost_token, lost_line, foreign_sign,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mistake:
    """One line of a file, as it stands there after an edit."""

    edit: str
    line: int  # from 0
    text: str

    def made(self, lines: list[str]) -> list[str]:
        return [*lines[: self.line], self.text, *lines[self.line + 1 :]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two mistakes in a file, what is told of each alone, and of both."""

    file: str
    mistakes: tuple[Mistake, Mistake]
    alone: tuple[frozenset[Error], frozenset[Error]]
    both: frozenset[Error]

    @property
    def lost(self) -> list[int]:
        """The mistakes of which what is told first when they are alone is not told."""
        return [k for k, errors in enumerate(self.alone) if first(errors) not in self.both]

    @property
    def less(self) -> bool:
        """Whether anything is missing that is told of one alone."""
        return not self.both >= self.alone[0] | self.alone[1]

    @property
    def more(self) -> frozenset[Error]:
        """What neither caused."""
        return self.both - self.alone[0] - self.alone[1]


def first(errors: frozenset[Error]) -> Error:
    return min(errors, key=lambda e: e[1])


def told(lines: list[str], path: Path) -> frozenset[Error]:
    """The errors of a text, by code and line."""
    return frozenset(map(_known, diagnose("\n".join(lines), path).errors))


def _known(e: NncError) -> Error:
    return e.code, e.span.position[0] if e.span is not None else 0


def _mistake(rng: random.Random, lines: list[str], path: Path) -> tuple[Mistake, frozenset[Error]] | None:
    """A mistake that is an error, if a few attempts find one."""
    code = [k for k, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    for _ in range(8):
        k, edit = rng.choice(code), rng.choice(EDITS)
        body, comment = re.fullmatch(r'((?:[^#"]|"[^"]*")*)(#.*)?', lines[k]).groups()  # type: ignore[union-attr]
        try:
            text = edit(rng, body) + (comment or "")
        except IndexError:  # there is nothing of the kind in this line
            continue
        mistake = Mistake(edit.__name__, k, text)
        if text != lines[k] and (errors := told(mistake.made(lines), path)):
            return mistake, errors
    return None


def statement_of(lines: list[str], k: int) -> int:
    """The first line of the statement that a line belongs to: one that is indented further, behind an open end, is of
    that above."""
    while k and re.search(r"[(\[,=+*|>-]\s*$", lines[k - 1]) and lines[k].strip():
        k -= 1
    return k


def pair(seed: int, number: int, files: tuple[str, ...] = ()) -> Pair:
    """A pair of mistakes, the same whenever it is asked for."""
    rng = random.Random(f"pair {seed} {number}")
    while True:
        path = MODELS / rng.choice(files or sorted(p.name for p in MODELS.glob("*.nn")))
        lines = path.read_text("utf-8").split("\n")
        made = _mistake(rng, lines, path), _mistake(rng, lines, path)
        if made[0] is None or made[1] is None:
            continue
        (a, of_a), (b, of_b) = made
        if statement_of(lines, a.line) != statement_of(lines, b.line):
            return Pair(path.name, (a, b), (of_a, of_b), told(b.made(a.made(lines)), path))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.mistakes", description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    found: list[Pair] = []
    for number in range(options.first, options.first + options.pairs):
        found.append(p := pair(options.seed, number))
        if p.lost or p.more:
            print(f"{number} {p.file}: {'lost ' if p.lost else ''}{'more' if p.more else ''}")
            for m, errors in zip(p.mistakes, p.alone, strict=True):
                print(f"    {m.edit} {m.line + 1}: {m.text.strip()}\n        {sorted(errors)}")
            print(f"    both: {sorted(p.both)}", flush=True)
    lost, more = [p for p in found if p.lost], [p for p in found if p.more]
    alone = [errors for p in found for errors in p.alone]
    print(
        f"{len(found)} pairs: both told {1 - len(lost) / len(found):.1%}, nothing else {1 - len(more) / len(found):.1%}"
    )
    print(f"all that is told of each alone {1 - sum(p.less for p in found) / len(found):.1%}")
    print(f"one alone has one error {sum(len(e) == 1 for e in alone) / len(alone):.1%}")
    print("lost:", Counter(p.mistakes[k].edit for p in lost for k in p.lost).most_common())
    print("more:", Counter(m.edit for p in more for m in p.mistakes).most_common())


if __name__ == "__main__":
    main()
