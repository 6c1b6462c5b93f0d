"""docs/architecture.md names files that are there, and every room of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOM = re.compile(r"^\| \d \| `([a-z_/]+)` \| (.*)\|$", re.M)
"""A line of the table of rooms: the room, and what it holds, named by its place in the room."""


def paths() -> list[str]:
    """Every path that the page names, from the root."""
    named = re.compile(r"`([a-z_0-9/]+(?:/|\.py))`")
    held = [f"{room}{path}" for room, text in ROOM.findall(PAGE) for path in named.findall(text)]
    whole = [path for path in re.findall(r"`([a-z_0-9/.]+)`", ROOM.sub("", PAGE)) if "/" in path]
    rooms = [room for room, _ in ROOM.findall(PAGE)]
    return sorted({*held, *whole, *rooms})


@pytest.mark.parametrize("path", paths())
def test_every_path_is_there(path: str) -> None:
    places = (ROOT, ROOT / "runtime" / "stages")  # the lives of message and weight name rows by their place
    assert any((place / path).exists() for place in places), f"docs/architecture.md names {path}"


def test_every_room_is_named() -> None:
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*/__init__.py")}
    shown = {room for room in rooms if re.search(rf"`{room}/|`{room.split('/')[1]}/", PAGE)}
    # one folder an op
    ops = {f"plugins/{path.parent.name}" for path in (ROOT / "plugins").glob("*/torch_op.py")}
    assert rooms - ops - {room for room in rooms if room.startswith("tests/")} <= shown
