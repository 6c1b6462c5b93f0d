"""Checkpoints as transformers 5 writes them and as they are published, with the weights of random ones:
built, and equal to the reference.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from antiphon.export.build import build
from antiphon.graphs.random.new_checkpoint import new_checkpoint
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.omni import load

from .reference import DECISIVE, generate, load_reference

PUBLISHED = Path(__file__).parents[1] / "data" / "qwen3_omni_30b_a3b" / "config.json"
FRONT_END = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
SOUND = {"type": "input_audio", "input_audio": {"data": np.zeros(1600, np.float32), "sample_rate": 16000}}
PICTURE = {"type": "image_url", "image_url": {"url": np.zeros((32, 32, 3), np.uint8)}}
MESSAGES = [{"role": "user", "content": "What is the time in Rome?"}]


def with_front_end(folder: Path, checkpoint: Path) -> Path:
    """`folder`, which holds weights and config.json,
    with the tokenizer and processor files of `checkpoint`.
    """
    for name in FRONT_END:
        shutil.copy(checkpoint / name, folder / name)
    return folder


def test_a_whole_checkpoint_that_was_saved_again_answers_as_the_reference(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model = load_reference(tiny_checkpoint)
    model.config.enable_audio_output = True
    model.save_pretrained(tmp_path / "saved")
    stored = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    assert "num_experts" not in stored["talker_config"]["text_config"], (
        "transformers writes num_local_experts: otherwise this test shows nothing"
    )
    with_front_end(tmp_path / "saved", tiny_checkpoint)
    transformers.AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path / "saved")
    build(tmp_path / "saved", tmp_path / "bundle", cache=False)
    with load(tmp_path / "bundle") as omni:
        prompt = omni.front_end.prompt(MESSAGES)
        expected = generate(model, prompt.token_ids, {}, 12, 6)
        reply = omni.generate(MESSAGES, greedy=True, max_text_tokens=12, max_frames=6)
    assert expected.margin > DECISIVE
    assert list(reply.token_ids) == expected.token_ids
    np.testing.assert_array_equal(reply.codes, expected.codes)


@pytest.mark.parametrize("prefix", ["thinker.", ""])
def test_a_thinker_that_was_saved_alone_answers_as_in_the_whole(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, prefix: str
) -> None:
    from safetensors.torch import load_file, save_file

    model = transformers.Qwen3OmniMoeThinkerForConditionalGeneration.from_pretrained(tiny_checkpoint)
    model.save_pretrained(tmp_path / "saved")
    tensors = load_file(tmp_path / "saved" / "model.safetensors")
    save_file(
        {prefix + name.removeprefix("thinker."): tensor for name, tensor in tensors.items()},
        tmp_path / "saved" / "model.safetensors",
    )
    build(with_front_end(tmp_path / "saved", tiny_checkpoint), tmp_path / "bundle")
    with load(tiny_bundle) as whole, load(tmp_path / "bundle") as alone:
        expected = whole.generate(MESSAGES, greedy=True, max_text_tokens=12, modalities=("text",))
        reply = alone.generate(MESSAGES, greedy=True, max_text_tokens=12)
    assert reply.token_ids == expected.token_ids and len(reply.audio) == 0


def test_a_causal_language_model_of_qwen3_5_answers_as_the_reference(tmp_path: Path) -> None:
    checkpoint = new_checkpoint(tmp_path / "whole", family="qwen3_5_omni")
    section: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))[
        "thinker_config"
    ]["text_config"]
    torch.manual_seed(3)
    model = transformers.Qwen3_5MoeForCausalLM(
        transformers.Qwen3_5MoeTextConfig(**section | {"model_type": "qwen3_5_moe_text"})
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # random weights as they are drawn decide nothing
    model.save_pretrained(tmp_path / "saved")
    for name in FRONT_END[:3]:
        shutil.copy(checkpoint / name, tmp_path / "saved" / name)
    manifest = build(tmp_path / "saved", tmp_path / "bundle", cache=False)
    assert list(manifest.stages) == ["thinker"]
    with load(tmp_path / "bundle") as omni:
        reply = omni.generate(MESSAGES, greedy=True, max_text_tokens=12)
        prompt = torch.from_numpy(omni.front_end.prompt(MESSAGES).token_ids)[None]
        for part, sense in ((SOUND, "audio"), (PICTURE, "vision")):
            with pytest.raises(AntiphonError, match=f"no {sense} encoder"):
                omni.generate([{"role": "user", "content": [part]}])
        with pytest.raises(AntiphonError, match="no audio encoder"):
            omni.front_end.open_turn()
    with torch.no_grad():
        settings = {
            "max_new_tokens": 12,
            "do_sample": False,
            "eos_token_id": None,
            "output_logits": True,
            "return_dict_in_generate": True,
        }
        answer = model.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)
    best = torch.topk(torch.cat(answer.logits).float(), 2).values
    assert float((best[:, 0] - best[:, 1]).min()) > DECISIVE
    assert list(reply.token_ids) == answer.sequences[0, prompt.shape[1] :].tolist()


def test_the_published_configuration_in_small_is_built_and_answers(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    small = json.loads((tiny_checkpoint / "config.json").read_text(encoding="utf-8"))
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert (
        published["code2wav_config"]["codebook_dim"] == 512 and "codebook_dim" not in small["code2wav_config"]
    )
    (tmp_path / "checkpoint" / "config.json").write_text(
        json.dumps(_shrunk(published, small)), encoding="utf-8"
    )
    build(tmp_path / "checkpoint", tmp_path / "bundle")
    with load(tiny_bundle) as first, load(tmp_path / "bundle") as second:
        expected, found = (
            omni.generate(MESSAGES, greedy=True, max_text_tokens=8, max_frames=4) for omni in (first, second)
        )
    assert found.token_ids == expected.token_ids
    np.testing.assert_array_equal(found.codes, expected.codes)


def _shrunk(published: dict[str, Any], small: dict[str, Any]) -> dict[str, Any]:
    """Every key of `published`, with the value of `small` where that has one;
    a list with an entry a layer has as many as `small` has layers.
    """
    chosen = {}
    for key, value in published.items():
        other = value[: small["num_hidden_layers"]] if key == "layer_types" else small.get(key, value)
        chosen[key] = (
            _shrunk(value, other)
            if isinstance(value, dict) and isinstance(other, dict) and key != "speaker_id"
            else other
        )
    return chosen
