from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from antiphon.export.frontend import write_frontend
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.config import OmniConfig
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.prompt.front_end import FrontEnd

SAMPLE = "Hello, wie geht's? 你好 👋🏽 <think> 1234 é e\u0301\n\n\t x"
FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
Change = Callable[[Any], Any]


@pytest.fixture(scope="session")
def config(tiny_checkpoint: Path) -> OmniConfig:
    return read_config(tiny_checkpoint)


@pytest.fixture()
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy without weights, to be changed by the test."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in FILES:
        shutil.copy(tiny_checkpoint / name, folder / name)
    return folder


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: value for name, value in {**content, **changes}.items() if value is not None})
    )


def constants(checkpoint: Path, config: OmniConfig) -> dict[str, Any]:
    destination = checkpoint.parent / "frontend"
    write_frontend(checkpoint, config, destination)
    return json.loads((destination / "frontend.json").read_text())


def ids(folder: Path) -> list[int]:
    return FrontEnd(folder).prompt([{"role": "user", "content": SAMPLE}]).token_ids.tolist()


def test_constants_are_those_of_the_checkpoint(checkpoint: Path, config: OmniConfig) -> None:
    found = constants(checkpoint, config)
    assert found["family"] == "qwen3_omni_moe" and found["generation"]["talker_temperature"] == 0.9
    sound = {
        "sampling_rate": 16000,
        "n_fft": 400,
        "hop_length": 160,
        "feature_size": 128,
        "n_window": 50,
        "n_window_infer": 800,
        "convolutions": 3,
    }
    assert found["audio"] == sound
    assert (found["image"]["min_pixels"], found["image"]["max_pixels"], found["image"]["patch_size"]) == (
        3136,
        12845056,
        16,
    )
    assert (found["video"]["min_pixels"], found["video"]["max_pixels"]) == (128 * 32**2, 768 * 32**2)
    assert (
        found["ids"]["audio"] == config.thinker.audio_token_id
        and found["special_tokens"]["eos_token"] == "<|im_end|>"
    )


@pytest.fixture()
def timed(config: OmniConfig) -> OmniConfig:
    """The same checkpoint, read as one of Qwen3.5-Omni."""
    audio = dataclasses.replace(config.thinker.audio, convolutions=4)
    family = {"textual_time": True, "may_think": True, "states_video_size": True}
    thinker = dataclasses.replace(
        config.thinker,
        audio=audio,
        timestamp_format="<{seconds:.1f} seconds>",
        audio_timestamp_seconds=2.5,
        **family,
    )
    return dataclasses.replace(config, thinker=thinker)


def test_textual_time_adds_what_its_prompts_need(
    checkpoint: Path, config: OmniConfig, timed: OmniConfig
) -> None:
    plain, found = constants(checkpoint, config), constants(checkpoint, timed)
    assert (
        found["timestamps"] == {"format": "<{seconds:.1f} seconds>", "audio_seconds": 2.5}
        and "timestamps" not in plain
    )
    assert found["audio"] == {**plain["audio"], "convolutions": 4}
    assert (plain["template_switches"], found["template_switches"]) == ({}, {"enable_thinking": False})
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    marks = {"vision_end": "<|vision_end|>", "think_open": "<think>", "think_close": "</think>"}
    assert found["ids"] == {
        **plain["ids"],
        **{name: tokenizer.token_to_id(token) for name, token in marks.items()},
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (128 * 32**2, 768 * 32**2)),
        ({"size": {"shortest_edge": 4096, "longest_edge": 65536}}, (4096, 65536)),
        ({"size": {"longest_edge": 65536}}, (128 * 32**2, 65536)),
        ({"size": None}, (128 * 32**2, 768 * 32**2)),
        # There the size counts for all frames of a video together.
        (
            {
                "size": {"shortest_edge": 4096, "longest_edge": 25165824},
                "video_processor_type": "Qwen3VLVideoProcessor",
            },
            (128 * 32**2, 768 * 32**2),
        ),
    ],
)
def test_pixels_of_a_video_frame_are_those_of_the_file_where_time_is_textual(
    checkpoint: Path, timed: OmniConfig, changes: dict, expected: tuple[int, int]
) -> None:
    edit(checkpoint / "video_preprocessor_config.json", **changes)
    found = constants(checkpoint, timed)["video"]
    assert (found["min_pixels"], found["max_pixels"]) == expected


def test_a_tokenizer_without_the_end_of_vision_is_named(
    checkpoint: Path, timed: OmniConfig, tmp_path: Path
) -> None:
    edit(checkpoint / "tokenizer_config.json", vision_eos_token="<nothing>", extra_special_tokens={})
    with pytest.raises(AntiphonError, match="no token '<nothing>', which ends an image or a video"):
        write_frontend(checkpoint, timed, tmp_path / "frontend")


def test_a_tokenizer_built_from_vocabulary_and_merges_equals_the_stored_one_and_the_reference(
    checkpoint: Path, config: OmniConfig, tmp_path: Path
) -> None:
    write_frontend(checkpoint, config, tmp_path / "stored")
    (checkpoint / "tokenizer.json").unlink()
    write_frontend(checkpoint, config, tmp_path / "built")
    assert ids(tmp_path / "built") == ids(tmp_path / "stored")
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoTokenizer.from_pretrained(checkpoint)
    expected = reference.apply_chat_template(
        [{"role": "user", "content": SAMPLE}], add_generation_prompt=True
    )["input_ids"]
    assert ids(tmp_path / "built") == expected


def test_added_tokens_that_only_the_configuration_lists_are_added(
    checkpoint: Path, config: OmniConfig, tmp_path: Path
) -> None:
    stored = json.loads((checkpoint / "tokenizer.json").read_text())
    last = stored["added_tokens"].pop()
    (checkpoint / "tokenizer.json").write_text(json.dumps(stored))
    write_frontend(checkpoint, config, tmp_path / "frontend")
    written = json.loads((tmp_path / "frontend" / "tokenizer.json").read_text())
    assert last in written["added_tokens"]


@pytest.mark.parametrize("place", ["chat_template.json", "tokenizer_config.json", "named templates"])
def test_the_chat_template_is_found_wherever_it_is(
    checkpoint: Path, config: OmniConfig, tmp_path: Path, place: str
) -> None:
    template = (checkpoint / "chat_template.jinja").read_text()
    (checkpoint / "chat_template.jinja").unlink()
    if place == "chat_template.json":
        (checkpoint / place).write_text(json.dumps({"chat_template": template}))
    else:
        named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": template}]
        edit(
            checkpoint / "tokenizer_config.json",
            chat_template=template if place == "tokenizer_config.json" else named,
        )
    write_frontend(checkpoint, config, tmp_path / "frontend")
    assert (tmp_path / "frontend" / "chat_template.jinja").read_text() == template


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            b"{% if %}",
            r"^The chat template in .*chat_template.jinja is not valid Jinja \(.*\); "
            r"use the chat template of the checkpoint\.$",
        ),
        (
            b"\xff\xfe{{ messages }}",
            r"chat_template.jinja is not UTF-8 text \(byte 0\); download the file again",
        ),
        (
            b"{{ messages[1].content }}",
            r"chat_template.jinja fails on these messages .*tried on a user's text\)\.$",
        ),
        (
            b"{% for m in messages %}{{ m.content + '' }}{% endfor %}",
            r"fails on these messages \(TypeError: .*tried on a text in a part\)\.$",
        ),
        (
            b"{{ 'words' }}{% for m in messages %}{{ 1 / (m.content | length - 2) }}{% endfor %}",
            r"tried on audio and text\)\.$",
        ),
        (
            b"{{ messages[0].content }}{{ raise_exception('no system') if messages[0].role == 'system' }}",
            r"no system.*tried on a text after a system prompt",
        ),
        (
            b"{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
            r"chat_template.jinja cannot be rendered: it takes more steps",
        ),
        (b"nothing", "writes nothing of the words in a user's text"),
    ],
)
def test_a_chat_template_that_cannot_serve_is_refused(
    checkpoint: Path, config: OmniConfig, tmp_path: Path, template: bytes, sentence: str
) -> None:
    (checkpoint / "chat_template.jinja").write_bytes(template)
    with pytest.raises(AntiphonError, match=sentence):
        write_frontend(checkpoint, config, tmp_path / "frontend")
    assert not (tmp_path / "frontend").exists()


def test_a_broken_template_in_the_tokenizers_settings_names_that_file(
    checkpoint: Path, config: OmniConfig, tmp_path: Path
) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    edit(checkpoint / "tokenizer_config.json", chat_template="{% if %}")
    with pytest.raises(
        AntiphonError, match="^The chat template in .*tokenizer_config.json is not valid Jinja"
    ):
        write_frontend(checkpoint, config, tmp_path / "frontend")


def test_processors_saved_in_one_file_give_the_same_constants(checkpoint: Path, config: OmniConfig) -> None:
    expected = constants(checkpoint, config)
    image = json.loads((checkpoint / "preprocessor_config.json").read_text())
    video = json.loads((checkpoint / "video_preprocessor_config.json").read_text())
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        (checkpoint / name).unlink()
    (checkpoint / "processor_config.json").write_text(
        json.dumps({"image_processor": image, "feature_extractor": image, "video_processor": video})
    )
    assert constants(checkpoint, config) == expected


def test_optional_files_have_defaults(checkpoint: Path, config: OmniConfig) -> None:
    (checkpoint / "video_preprocessor_config.json").unlink()
    (checkpoint / "generation_config.json").unlink()
    edit(
        checkpoint / "preprocessor_config.json",
        min_pixels=None,
        max_pixels=None,
        size={"shortest_edge": 4096, "longest_edge": 8192},
        image_mean=None,
    )
    found = constants(checkpoint, config)
    assert found["generation"] == {} and found["video"]["patch_size"] == 16
    assert (found["image"]["min_pixels"], found["image"]["max_pixels"]) == (4096, 8192)
    # OpenAI CLIP's, the class default
    assert found["image"]["image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])


@pytest.mark.parametrize(
    ("removed", "sentence"),
    [
        (("preprocessor_config.json",), "no preprocessor_config.json"),
        (("chat_template.jinja",), "no chat template"),
        (("tokenizer.json", "merges.txt"), "merges.txt is missing"),
        (("tokenizer.json", "vocab.json"), "vocab.json is missing"),
        (
            ("tokenizer.json", "tokenizer_config.json"),
            "tokenizer_config.json' is missing|tokenizer_config.json is missing",
        ),
    ],
)
def test_a_missing_file_is_named(
    checkpoint: Path, config: OmniConfig, tmp_path: Path, removed: tuple[str, ...], sentence: str
) -> None:
    for name in removed:
        (checkpoint / name).unlink()
    with pytest.raises(AntiphonError, match=sentence):
        write_frontend(checkpoint, config, tmp_path / "frontend")
    assert not (tmp_path / "frontend").exists()


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("preprocessor_config.json", {"patch_size": 14}, "disagree: patch_size is 14, expected 16"),
        ("preprocessor_config.json", {"feature_size": 80}, "disagree: feature_size is 80, expected 128"),
        (
            "video_preprocessor_config.json",
            {"merge_size": 1},
            "video_preprocessor_config.json and config.json disagree: merge_size",
        ),
        ("preprocessor_config.json", {"do_resize": False}, "switches do_resize off"),
        ("preprocessor_config.json", {"dither": 0.1}, "asks for dither"),
        (
            "tokenizer_config.json",
            {"audio_eos_token": "<nothing>", "extra_special_tokens": {}},
            "no token '<nothing>'",
        ),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"7": {"content": "<|im_end|>"}}},
            "gives '<|im_end|>' the id 7".replace("|", r"\|"),
        ),
    ],
)
def test_files_that_contradict_each_other_are_named(
    checkpoint: Path, config: OmniConfig, tmp_path: Path, name: str, changes: dict, sentence: str
) -> None:
    edit(checkpoint / name, **changes)
    with pytest.raises(AntiphonError, match=sentence):
        write_frontend(checkpoint, config, tmp_path / "frontend")


HUGE = 10**400


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"seven": {"content": "<|im_end|>"}}},
            "the id 'seven', expected an integer",
        ),
        (
            "tokenizer_config.json",
            {"added_tokens_decoder": {"9" * 5000: {"content": "<|im_end|>"}}},
            "the id '9999.*expected an integer",
        ),
        ("tokenizer_config.json", {"added_tokens_decoder": {"7": {}}}, "expected its content"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"7": 3}}, "expected its content"),
        (
            "tokenizer_config.json",
            {"audio_eos_token": "x" * 10**6, "extra_special_tokens": {}},
            "no token 'xxx",
        ),
        ("preprocessor_config.json", {"image_mean": 3}, "image_mean is 3, expected three numbers"),
        (
            "preprocessor_config.json",
            {"image_std": [1, 1, 0]},
            "image_std is .1, 1, 0., expected three numbers",
        ),
        (
            "preprocessor_config.json",
            {"rescale_factor": "small"},
            "rescale_factor is 'small', expected a number above 0",
        ),
        ("preprocessor_config.json", {"resample": 9}, "resample is 9, expected an integer in 0 .. 5"),
        ("preprocessor_config.json", {"sampling_rate": HUGE}, "sampling_rate is 1000.*expected an integer"),
        ("preprocessor_config.json", {"max_pixels": [1]}, "max_pixels is .1., expected an integer"),
        ("preprocessor_config.json", {"patch_size": 16.0}, "patch_size is 16.0, expected 16"),
        (
            "generation_config.json",
            {"temperature": "warm"},
            "temperature is 'warm', expected a number in 0 .. 1000",
        ),
        ("generation_config.json", {"talker_top_k": 1.5}, "talker_top_k is 1.5, expected an integer"),
        ("generation_config.json", {"top_p": 1.5}, "top_p is 1.5, expected a number in 0 .. 1"),
        (
            "generation_config.json",
            {"predictor_top_k": -HUGE},
            "predictor_top_k is -1000.*expected an integer",
        ),
    ],
)
def test_a_value_that_is_none_is_named_before_a_stage_is_built(
    checkpoint: Path, config: OmniConfig, tmp_path: Path, name: str, changes: dict, sentence: str
) -> None:
    edit(checkpoint / name, **changes)
    with pytest.raises(AntiphonError, match=sentence) as caught:
        write_frontend(checkpoint, config, tmp_path / "frontend")
    assert len(str(caught.value)) < 500 and not (tmp_path / "frontend").exists()


def test_a_tokenizer_of_more_ids_than_the_thinker_has_rows_is_refused(
    checkpoint: Path, config: OmniConfig, tmp_path: Path
) -> None:
    text = dataclasses.replace(config.thinker.text, vocab_size=2000)
    narrow = dataclasses.replace(config, thinker=dataclasses.replace(config.thinker, text=text))
    with pytest.raises(AntiphonError, match="has the id .*, for which the 2000 of vocab_size are too few"):
        write_frontend(checkpoint, narrow, tmp_path / "frontend")


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json"]
)
def test_a_broken_file_is_named(checkpoint: Path, config: OmniConfig, tmp_path: Path, name: str) -> None:
    (checkpoint / name).write_text("{")
    with pytest.raises(AntiphonError, match=name):
        write_frontend(checkpoint, config, tmp_path / "frontend")
