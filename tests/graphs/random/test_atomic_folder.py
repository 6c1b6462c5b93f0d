"""A checkpoint's folder: whole when the block ends, and nothing of it when the block fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.graphs.random.atomic_folder import whole_checkpoint
from antiphon.runtime.bundle.errors import AntiphonError


def test_the_folder_takes_its_name_when_the_block_ends(tmp_path: Path) -> None:
    with whole_checkpoint(tmp_path / "new" / "tiny") as beside:
        (beside / "config.json").write_text("{}")
        assert not (tmp_path / "new" / "tiny").exists()
    assert [file.name for file in (tmp_path / "new" / "tiny").iterdir()] == ["config.json"]
    assert [folder.name for folder in (tmp_path / "new").iterdir()] == ["tiny"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, AntiphonError])
def test_nothing_is_left_and_nothing_lost_where_the_block_fails(
    tmp_path: Path, failure: type[BaseException]
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("old")
    with pytest.raises(failure), whole_checkpoint(tmp_path / "old", replace=True) as beside:
        (beside / "config.json").write_text("new")
        raise failure("in the middle")
    assert [folder.name for folder in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "config.json").read_text() == "old"


def test_a_folder_that_holds_something_gives_way_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    with (
        pytest.raises(AntiphonError, match="Cannot write the checkpoint to .*Directory not empty"),
        whole_checkpoint(tmp_path),
    ):
        pass
    assert (tmp_path / "config.json").read_text() == "old"
    with whole_checkpoint(tmp_path, replace=True) as beside:
        (beside / "config.json").write_text("new")
    assert (tmp_path / "config.json").read_text() == "new"
