"""Data formats: every cell of a record is there, and what is told of a format elsewhere is what the record says."""

from __future__ import annotations

from dataclasses import fields, replace
from inspect import Parameter, signature
from pathlib import Path
from typing import get_args

import pytest

from nnc.dsl.codes import explain
from nnc.runtime.data import format
from nnc.runtime.data.csv import CSV
from nnc.runtime.data.format import NEEDED, Format, Option
from nnc.runtime.data.formats import NAMES, by_suffix, formats

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "dsl" / "README.md").read_text("utf-8")
ROOM = Path(format.__file__).parent


def missing(f: Format, page: str = explain("E0612") or "", reference: str = REFERENCE) -> list[str]:
    """The cells of a record that are forgotten, or that say something else than the rest of the house."""
    wrong = []
    if not f.name.isidentifier():
        wrong.append("name")
    if not f.about.endswith(".") or len(f.about) < 40:
        wrong.append("about: what is read, and the columns it gives, in sentences")
    if not f.example.startswith(f"{f.name}("):
        wrong.append("example: as a train block writes it")
    if f.takes not in ("file", "folder", "either"):
        wrong.append("takes")
    if not f.options or f.options[0].name != "path" or not f.options[0].is_path:
        wrong.append("options: the path first")
    for o in f.options:
        if not o.about:
            wrong.append(f"about of the option `{o.name}`")
        kinds = get_args(o.type) or (o.type,)
        odd = {*kinds} - {str, int, float, bool, tuple, list, type(None)}
        if odd or (o.default is not NEEDED and not isinstance(o.default, o.type)):
            wrong.append(f"type of the option `{o.name}`")
    path, schema, *rest = signature(f.read).parameters.values()
    keywords = [p.name for p in rest if p.kind is not Parameter.VAR_KEYWORD]
    if {path.kind, schema.kind} != {Parameter.POSITIONAL_ONLY}:
        wrong.append("read: takes (path, schema, /, **options)")
    if len(keywords) == len(rest) and keywords != [o.name for o in f.options[1:]]:
        wrong.append("options: those that `read` takes, in its order")
    if f.takes != "folder" and not f.suffixes and f.inputs is not None:
        wrong.append("suffixes: by which `nnc predict` knows the file")
    if any(not s.startswith(".") for s in f.suffixes):
        wrong.append("suffixes")
    if f"`{f.example}`" not in " ".join(page.split()):
        wrong.append("dsl/explain/E0612.md: the example")
    if f"`{f.example}`" not in " ".join(reference.split()):
        wrong.append("dsl/README.md: the example")
    return wrong


@pytest.mark.parametrize("f", formats().values(), ids=NAMES)
def test_no_cell_is_forgotten(f: Format) -> None:
    assert missing(f) == []


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({"about": ""}, "about"),
        ({"example": "data(..)"}, "example"),
        ({"options": CSV.options[1:]}, "options"),
        ({"options": CSV.options[:2]}, "options"),
        ({"suffixes": ()}, "suffixes"),
        ({"takes": ""}, "takes"),
        ({"options": (*CSV.options[:-1], Option("delimiter", str, "", ","))}, "about of the option `delimiter`"),
        ({"options": (*CSV.options[:-1], Option("delimiter", int, "x", ","))}, "type of the option `delimiter`"),
        ({"read": lambda path, target: None}, "read"),
        ({"example": 'csv("other.csv")'}, "dsl/README.md"),
        ({"example": 'csv("other.csv")'}, "dsl/explain/E0612.md"),
    ],
)
def test_a_cell_left_out_is_named(cells: dict, told: str) -> None:
    assert any(line.startswith(told) for line in missing(replace(CSV, **cells)))


def test_cells_without_a_default_cannot_be_left_out() -> None:
    needed = [f.name for f in fields(Format) if f.name not in ("suffixes", "holds", "inputs", "held_out", "in_order")]
    for name in needed:
        with pytest.raises(TypeError, match=name):
            Format(**{n: getattr(CSV, n) for n in needed if n != name})


def test_every_record_is_listed() -> None:
    """A file of the room that makes a record is one that `formats` collects."""
    made = [p.stem for p in ROOM.glob("*.py") if "= Format(" in p.read_text("utf-8")]
    assert len(made) == len(formats()) and tuple(formats()) == NAMES


def test_no_two_formats_claim_a_file() -> None:
    suffixes = [s for f in formats().values() for s in f.suffixes]
    assert len(suffixes) == len(set(suffixes))
    for f in formats().values():
        assert all(by_suffix(f"a{s}") is f and by_suffix(f"a{s}.gz") is f for s in f.suffixes)
    assert by_suffix("a.txt") is None and by_suffix("csv") is None


def test_a_page_says_what_the_record_says() -> None:
    text = CSV.page()
    assert text.startswith('# csv("file.csv", target = "species")\n\nA table')
    assert "- `target`: text or a whole number, by default none; the column" in text
    assert "- `header`: true or false, by default true;" in text and "ends in .csv" in text
