"""The READMEs of the rooms: a room of more than four files has one, with a row that names each file and no other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP = [ROOT / name for name in ("compiler", "runtime", "tests")]
ROOMS = sorted({p.parent for top in TOP for p in top.rglob("*.py")} - {*TOP})
FILES = {room: {p.stem for p in room.glob("*.py")} - {"__init__"} for room in ROOMS}


@pytest.mark.parametrize("room", [r for r in ROOMS if len(FILES[r]) >= 4], ids=lambda r: r.relative_to(ROOT).as_posix())
def test_a_room_says_what_is_in_it(room: Path) -> None:
    text = (room / "README.md").read_text("utf-8")
    name = "/".join(room.relative_to(ROOT).parts[1:])
    assert text.startswith(f"# {name}:") or text.startswith(f"# {name}\n"), "the room, and what it is for"
    table = text[text.index("| --- | --- |") :].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(.+?)`", row)}
    folders = {f"{f.name}/" for f in FILES if f.parent == room}
    assert named - folders == FILES[room], "one row for each file, and none for what is not there"
    assert folders <= named
