"""The layers that a checkpoint's weights hold against those that its configuration states."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from antiphon.graphs.checkpoints.check_weights import check_folder
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.runtime.bundle.errors import AntiphonError

INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("family", ["tiny_checkpoint", "hybrid_checkpoint"])
def test_a_whole_checkpoint_passes(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    check_folder(folder, read_config(folder))


def test_a_folder_without_weights_passes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    check_folder(tmp_path, read_config(tiny_checkpoint))


@pytest.mark.parametrize(
    ("stack", "field"),
    [
        ("thinker.model.layers", "text_config.num_hidden_layers"),
        ("thinker.visual.blocks", "depth"),
        ("thinker.audio_tower.layers", "encoder_layers"),
        ("talker.model.layers", "talker_config.text_config"),
        ("talker.code_predictor.model.layers", "code_predictor_config"),
    ],
)
def test_more_layers_than_the_configuration_states_are_named(
    tiny_checkpoint: Path, tmp_path: Path, stack: str, field: str
) -> None:
    index = json.loads((tiny_checkpoint / INDEX).read_text())
    index["weight_map"][f"{stack}.7.w"] = "model-00001-of-00002.safetensors"
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(
        AntiphonError,
        match=(
            rf"hold 8 layers of {stack.rpartition('.')[0]}, expected \d by .*{field}.* in config.json; "
            r"use the config.json"
        ),
    ):
        check_folder(tmp_path, read_config(tiny_checkpoint))


def test_fewer_layers_are_named_by_the_plan(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from antiphon.export.plan import plan

    shutil.copy(tiny_checkpoint / INDEX, tmp_path)
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["thinker_config"]["text_config"]["num_hidden_layers"] = 512
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AntiphonError, match="its weights hold 4 layers of thinker.model, expected 512"):
        plan(tmp_path)
