"""Classes of the compiler against those that the standard library makes."""

import copy
import dataclasses
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from nnc.dsl import record

ROOT = Path(__file__).parents[2]


class Body:
    a: int
    b: list[int] = dataclasses.field(default_factory=list)
    c: int = dataclasses.field(default=3, compare=False)
    d: str = dataclasses.field(default="d", repr=False, kw_only=True)
    e: int = dataclasses.field(default=5, init=False)


class Watched:
    a: int
    b: int = 2

    def __post_init__(self) -> None:
        self.a += 1

    def __repr__(self) -> str:
        return "watched"

    def __eq__(self, other: object) -> bool:
        return True


def made(by: Any, body: type, **how: bool) -> Any:
    own = {k: v for k, v in body.__dict__.items() if k not in ("__dict__", "__weakref__")}
    return by(**how)(type(body)(body.__name__, body.__bases__, own))


@pytest.mark.parametrize("how", [{}, {"slots": True}, {"eq": False}, {"repr": False}, {"kw_only": True, "slots": True}])
@pytest.mark.parametrize(
    "body, given", [(Body, {"a": 1}), (Body, {"a": 1, "b": [2], "c": 4, "d": "x"}), (Watched, {"a": 1})]
)
def test_classes_do_what_those_of_the_standard_library_do(
    body: type, given: dict[str, Any], how: dict[str, bool]
) -> None:
    ours, theirs = (made(by, body, **how)(**given) for by in (record.dataclass, dataclasses.dataclass))
    names = [f.name for f in dataclasses.fields(theirs)]
    assert [getattr(ours, n) for n in names] == [getattr(theirs, n) for n in names]
    assert [f.name for f in record.fields(ours)] == names
    assert hasattr(ours, "__dict__") == hasattr(theirs, "__dict__")
    assert (ours == copy.copy(ours)) == (theirs == copy.copy(theirs))
    assert (type(ours).__hash__ is None) == (type(theirs).__hash__ is None)
    if how.get("repr", True):
        assert repr(ours) == repr(theirs)
    assert ours != theirs or body is Watched
    if body is Body:
        assert dataclasses.replace(ours, a=7).a == 7


@record.dataclass(frozen=True, slots=True)
class Pair:
    a: int
    b: tuple[int, ...] = ()


@record.dataclass(frozen=True, slots=True)
class Triple(Pair):
    c: int = 0


def test_what_is_frozen_is_a_key() -> None:
    assert {Pair(1, (2,)): "x"}[Pair(1, (2,))] == "x"
    assert Pair(1) != Pair(2) and Pair(1) != Triple(1) and Triple(1, (), 2) == Triple(1, c=2)
    assert hash(Triple(1)) == hash((1, (), 0))
    assert pickle.loads(pickle.dumps(Triple(1, (2,), 3))) == Triple(1, (2,), 3)
    with pytest.raises(TypeError, match=re.escape("Pair.__init__() missing 1 required positional argument: 'a'")):
        Pair()  # type: ignore[call-arg]


def test_every_class_of_the_compiler_is_made_so() -> None:
    files = [p for room in ("compiler", "dsl") for p in (ROOT / room).rglob("*.py") if p != ROOT / "dsl" / "record.py"]
    assert not [p for p in files if re.search(r"^from dataclasses import .*\bdataclass\b", p.read_text("utf-8"), re.M)]
