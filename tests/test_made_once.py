"""What the workers of a run share: made once, whole or again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .made_once import made_once


def test_a_folder_is_made_by_the_first_who_asks_and_the_others_wait_for_it(tmp_path: Path) -> None:
    makers: list[int] = []

    def ask(number: int) -> str:
        def make(folder: Path) -> None:
            makers.append(number)
            (folder / "content").write_text("whole")

        return (made_once(tmp_path / "shared", make) / "content").read_text()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == ["whole"] * 4
    assert len(makers) == 1


def test_a_folder_whose_making_failed_is_made_again_from_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        made_once(tmp_path / "shared", fail)
    folder = made_once(tmp_path / "shared", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]
