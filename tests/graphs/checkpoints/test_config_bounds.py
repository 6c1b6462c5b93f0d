"""Sizes beyond all bounds are refused before anything loops over them, and published ones are far inside."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from antiphon.graphs import config as config_module
from antiphon.graphs.checkpoints.config_bounds import (
    _TABLE,
    LARGEST_COUNT,
    bound,
    excess,
    first_excess,
    unusable_name,
)
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.runtime.bundle.errors import AntiphonError

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("name", ["qwen3_omni_30b_a3b", "qwen3_5_omni_35b_a3b"])
def test_a_model_of_four_times_every_published_size_is_inside_the_bounds(name: str) -> None:
    config = read_config(DATA / name)
    assert config.talker is not None and config.code2wav is not None
    for part in (
        config.thinker.text,
        config.thinker.audio,
        config.thinker.vision,
        config.talker.text,
        config.talker.predictor,
        config.code2wav,
    ):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if type(value) is int:
                assert 4 * value <= bound(type(part), field.name), field.name


def test_every_bound_is_of_a_field() -> None:
    for cls, bounds in _TABLE.items():
        assert hasattr(config_module, cls.__name__) and set(bounds) <= {
            field.name for field in dataclasses.fields(cls)
        }


def test_excess_says_what_is_expected() -> None:
    decoder, wave = config_module.DecoderConfig, config_module.Code2WavConfig
    assert (
        excess(decoder, "num_hidden_layers", 512) == ""
        and excess(decoder, "num_hidden_layers", 513) == "an integer of at most 512"
    )
    assert (
        excess(decoder, "max_position_embeddings", LARGEST_COUNT) == ""
        and excess(decoder, "max_position_embeddings", 2**31) != ""
    )
    assert excess(wave, "upsample_rates", (2,) * 17) == "a list of at most 16 entries"
    assert excess(wave, "upsample_rates", (2, 5000)) == "integers of at most 1024"
    assert (
        excess(decoder, "rms_norm_eps", 1e300) == "a number of at most 1e+15"
        and excess(config_module.VisionConfig, "hidden_act", "x" * 201) != ""
    )


def test_first_excess_names_the_field() -> None:
    linear = config_module.LinearAttentionConfig(4, 4, 16, 16, 4)
    assert first_excess(linear) is None
    assert first_excess(dataclasses.replace(linear, linear_num_value_heads=10**9)) == (
        "linear_num_value_heads",
        "an integer of at most 4096",
    )


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("ethan", True),
        ("Ünal", True),
        ("", False),
        ("a\nb", False),
        ("x" * 200, True),
        ("x" * 201, False),
        (7, False),
    ],
)
def test_a_name_is_a_few_printable_letters(name: Any, fits: bool) -> None:
    assert (unusable_name(["fine", name]) is None) == fits


@pytest.mark.parametrize("family", ["tiny_checkpoint", "hybrid_checkpoint"])
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            "thinker_config.text_config.num_hidden_layers",
            10**6,
            "num_hidden_layers is 1000000, expected an integer of at most 512",
        ),
        (
            "talker_config.text_config.num_hidden_layers",
            10**400,
            "num_hidden_layers is 1000.*expected an integer of at most 512",
        ),
        (
            "talker_config.code_predictor_config.num_hidden_layers",
            10**9,
            "expected an integer of at most 512",
        ),
        (
            "thinker_config.text_config.num_experts",
            10**6,
            "num_experts is 1000000, expected an integer of at most 4096",
        ),
        ("thinker_config.text_config.vocab_size", 2**40, "vocab_size"),
        (
            "thinker_config.vision_config.depth",
            10**7,
            "depth is 10000000, expected an integer of at most 512",
        ),
        (
            "thinker_config.vision_config.deepstack_visual_indexes",
            [0] * 65,
            "expected a list of at most 64 entries",
        ),
        ("thinker_config.audio_config.encoder_layers", 10**7, "encoder_layers"),
        (
            "talker_config.speaker_id",
            {"x" * 10**6: 1},
            "speaker_id holds the name 'xxx.*expected 1 to 200 printable letters",
        ),
        ("talker_config.speaker_id", {"a\nb": 1}, "speaker_id holds the name"),
        (
            "thinker_config.text_config.rms_norm_eps",
            10**400,
            "rms_norm_eps is 1000.*expected a number above 0",
        ),
        ("thinker_config.text_config.layer_types", ["full_attention"] * 3, "layer_types"),
        ("model_type", "x" * 10**6, "unknown model family"),
        ("thinker_config", [[[]]], "section thinker_config is missing"),
    ],
)
def test_a_hostile_field_is_one_sentence_at_once(
    tmp_path: Path, family: str, path: str, value: Any, said: str, request: pytest.FixtureRequest
) -> None:
    config = json.loads((request.getfixturevalue(family) / "config.json").read_text())
    *sections, name = path.split(".")
    node = config
    for section in sections:
        node = node[section]
    node[name] = value
    if name == "num_hidden_layers":
        node.pop("layer_types", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    before = time.process_time()
    with pytest.raises(AntiphonError, match=said) as caught:
        read_config(tmp_path)
    assert time.process_time() - before < 1 and len(str(caught.value)) < 500


def test_a_plan_of_more_parameters_than_any_model_has_is_refused(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from antiphon.export.plan import plan

    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["thinker_config"]["text_config"] |= {
        "num_experts": 4096,
        "moe_intermediate_size": 2**20,
        "num_hidden_layers": 64,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AntiphonError, match="describes .* parameters, more than any model has"):
        plan(tmp_path)


def test_a_path_longer_than_a_file_system_takes_holds_no_checkpoint() -> None:
    with pytest.raises(AntiphonError, match="No checkpoint at xxx") as caught:
        read_config("x" * 5000)
    assert len(str(caught.value)) < 400
