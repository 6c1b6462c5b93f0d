"""docs/architecture.md names files that are there, and every room of the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PATHS = sorted({found for found in re.findall(r"`([a-z_0-9/.]+)`", PAGE) if "/" in found})
PLACEHOLDERS = ("KIND", "OP")


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_there(path: str) -> None:
    places = (ROOT, ROOT / "runtime" / "stages")  # a room's table names files by their place in it
    assert any((place / path).exists() for place in places), f"docs/architecture.md names {path}"


def test_every_room_is_named() -> None:
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("*/*/__init__.py")}
    shown = {room for room in rooms if re.search(rf"`{room}/|`{room.split('/')[1]}/", PAGE)}
    # one folder an op
    ops = {f"plugins/{path.parent.name}" for path in (ROOT / "plugins").glob("*/torch_op.py")}
    assert rooms - ops - {room for room in rooms if room.startswith("tests/")} <= shown
