"""A family defined in the tests alone: once registered, checkpoints of it are made, planned, built,
verified and answer, and no product file knows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import antiphon
from antiphon.export.plan import plan
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.families import registry
from antiphon.runtime.bundle.manifest import read_manifest

from .toy_family import CONTRACT, GROUPS, NAME, PREDICTOR, TOY, VOICES


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    registry.register(TOY)
    yield
    registry.unregister(NAME)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return antiphon.new_checkpoint(tmp_path_factory.mktemp("toy") / "checkpoint", NAME)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    antiphon.build(checkpoint, checkpoint.parent / "bundle")
    return checkpoint.parent / "bundle"


def test_its_config_is_read_by_its_own_reader_under_each_of_its_names(
    checkpoint: Path, tmp_path: Path
) -> None:
    for name in (NAME, *TOY.aliases):
        raw = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")) | {"model_type": name}
        (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        config = read_config(tmp_path)
        assert config.family == NAME and config.talker is not None and config.talker.contract == CONTRACT


def test_it_is_planned_stage_by_stage(checkpoint: Path) -> None:
    planned = plan(checkpoint)
    assert planned.family == NAME and [row.stage for row in planned.rows] == [
        "thinker",
        "talker",
        "predictor",
        "code2wav",
    ]


def test_its_manifest_says_what_its_record_says(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert (
        manifest.family == NAME
        and manifest.talker == CONTRACT
        and manifest.sampling["predictor"] == PREDICTOR
    )
    assert manifest.voices == VOICES and manifest.default_voice == "bob"


def test_its_engines_agree_with_its_modules(bundle: Path, checkpoint: Path) -> None:
    report = antiphon.verify(bundle, checkpoint)
    assert report.passed and {row.stage for row in report.rows} == {
        "thinker",
        "talker",
        "predictor",
        "code2wav",
    }


def test_it_answers_with_text_and_speech(bundle: Path) -> None:
    ask = [{"role": "user", "content": "hi"}]
    with antiphon.load(bundle) as omni:
        default, bob, ada = (
            omni.generate(ask, max_text_tokens=4, max_frames=3, greedy=True, voice=voice)
            for voice in (None, "bob", "ada")
        )
    assert (
        default.text
        and default.codes.shape == (3, GROUPS)
        and default.audio.shape == (3 * 8,)
        and np.abs(default.audio).max() > 0
    )
    np.testing.assert_array_equal(default.codes, bob.codes)
    assert ada.text == bob.text and not np.array_equal(ada.codes, bob.codes)
