"""The call around a place of the text, from its tokens alone: so it is found also while the call is being written."""

from __future__ import annotations

from dataclasses import dataclass

from ...dsl.tokens import Token
from .symbols import Words


@dataclass(frozen=True, slots=True)
class Around:
    """`path` are the tokens of `Net.body` before the bracket; `argument` counts positions from 0, where a pipe gives
    the first; `named` is the argument that is being given by name, `given` those that are."""

    path: tuple[Token, ...]
    argument: int
    named: str | None
    given: frozenset[str]


def around(words: Words, offset: int) -> Around | None:
    """The innermost call whose brackets an offset is in."""
    tokens = words.tokens
    inner = words.last(offset)
    if inner >= 0 and tokens[inner].span.end > offset:
        inner -= 1
    depth, commas, given = 0, 0, set[str]()
    named: str | None = None
    for k in range(inner, -1, -1):
        t = tokens[k]
        if t.type in ("RPAR", "RSQB", "RBRACE"):
            depth += 1
        elif t.type in ("LPAR", "LSQB", "LBRACE") and depth:
            depth -= 1
        elif depth:
            continue
        elif t.type == "LBRACE":
            return None
        elif t.type == "LPAR" and k and tokens[k - 1].type == "NAME" and not _defines(tokens, k - 1):
            path = _path(tokens, k - 1)
            first = k - 1 - 2 * (len(path) - 1)
            piped = first > 0 and (tokens[first - 1].type == "PIPE" or _is_labelled(tokens, first))
            return Around(path, commas + piped, named, frozenset(given))
        elif t.type in ("LPAR", "LSQB"):
            commas, given, named = 0, set(), None
        elif t.type == "COMMA":
            commas += 1
        elif t.type == "EQUALS" and k and tokens[k - 1].type == "NAME":
            given.add(tokens[k - 1].text)
            if commas == 0:
                named = tokens[k - 1].text
    return None


def _path(tokens: tuple[Token, ...], k: int) -> tuple[Token, ...]:
    """The names with dots between them that end at a token."""
    path = [tokens[k]]
    while k >= 2 and tokens[k - 1].type == "DOT" and tokens[k - 2].type == "NAME":
        k -= 2
        path.append(tokens[k])
    return tuple(reversed(path))


def path_before(words: Words, dot: int) -> tuple[Token, ...]:
    """What stands before a dot: the number of its token comes in."""
    return _path(words.tokens, dot - 1) if dot and words.tokens[dot - 1].type == "NAME" else ()


def _is_labelled(tokens: tuple[Token, ...], first: int) -> bool:
    """Whether `|> label:` stands before a name."""
    return first > 2 and tokens[first - 1].type == "COLON" and tokens[first - 3].type == "PIPE"


def _defines(tokens: tuple[Token, ...], k: int) -> bool:
    """Whether a bracket behind a name is that of a definition."""
    return k > 0 and tokens[k - 1].type in ("FN", "LAYER", "MODEL", "OPTIMIZER", "EXPORT", "TRAIN")
