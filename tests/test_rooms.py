"""The READMEs of the rooms: a room of more than four files has one, with a row that names each file and no other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = sorted({p.parent for p in (ROOT / "compiler").rglob("*.py")} - {ROOT / "compiler"})
FILES = {room: {p.stem for p in room.glob("*.py")} - {"__init__"} for room in ROOMS}


@pytest.mark.parametrize("room", [r for r in ROOMS if len(FILES[r]) >= 4], ids=lambda r: r.relative_to(ROOT).as_posix())
def test_a_room_says_what_is_in_it(room: Path) -> None:
    text = (room / "README.md").read_text("utf-8")
    assert text.startswith(f"# {room.relative_to(ROOT / 'compiler').as_posix()}"), "the room, and what it is for"
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(.+?)`", row)}
    folders = {f"{f.name}/" for f in FILES if f.parent == room}
    assert named - folders == FILES[room], "one row for each file, and none for what is not there"
    assert folders <= named
