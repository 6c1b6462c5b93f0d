"""Random checkpoints: the published format, the same bytes for the same seed, and answers worth comparing."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import antiphon
from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.random.configuration import configuration
from antiphon.graphs.random.new_checkpoint import new_checkpoint
from antiphon.graphs.random.tensors import all_tensors
from antiphon.graphs.random.tokenizer import NAMED_TOKENS, ROLES, SPECIAL_TOKENS, token_ids, train
from antiphon.runtime.bundle.errors import AntiphonError

TEXTS = (
    "Good morning! It's 12 o'clock.\n\n  Two  spaces, and\ttabs: naïve façade 🙂",
    "早上好，今天天气很好。 おはようございます。 안녕하세요. Доброе утро! "
    "صباح الخير सुप्रभात Καλημέρα สวัสดี בוקר טוב",
    "<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|>What is this?<|im_end|>\n"
    "<|im_start|>assistant\n<think></think>",
)
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "audio", "audio": "a.wav"},
            {"type": "image", "image": "a.png"},
            {"type": "text", "text": "What is this?"},
        ],
    },
    {"role": "assistant", "content": "A bell."},
    {"role": "user", "content": [{"type": "video", "video": "a.mp4"}]},
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


def test_a_checkpoint_is_made_without_the_packages_of_an_extra(tiny: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'safetensors', 'onnx', "
        "'onnx_ir', 'onnxscript')))\n"
    )
    code += "from antiphon.graphs.random.new_checkpoint import new_checkpoint; new_checkpoint(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "made")], check=True)
    assert filecmp.cmp(
        tiny / "model-00001-of-00002.safetensors",
        tmp_path / "made" / "model-00001-of-00002.safetensors",
        shallow=False,
    )


@pytest.fixture(scope="module")
def load() -> Callable[[Path], Any]:
    """Loads a checkpoint in the reference implementation and checks that every tensor found its place."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def loader(path: Path) -> Any:
        model, report = transformers.Qwen3OmniMoeForConditionalGeneration.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True
        )
        assert not any(report.values()), report
        return model.eval()

    return loader


@pytest.mark.parametrize(
    ("layout", "dtype", "overrides"),
    [
        ("per_expert", "bfloat16", {}),
        ("fused", "float16", {"talker_config.text_config.norm_topk_prob": False}),
        (
            "per_expert",
            "float32",
            {"thinker_config.text_config.mlp_only_layers": [1], "talker_config.accept_hidden_layer": 1},
        ),
        (
            "per_expert",
            "bfloat16",
            {"thinker_config.tie_word_embeddings": True, "thinker_config.text_config.num_experts": 4},
        ),
        (
            "per_expert",
            "bfloat16",
            {
                "talker_config.text_config.mlp_only_layers": [0],
                "thinker_config.text_config.attention_bias": True,
            },
        ),
        (
            "per_expert",
            "bfloat16",
            {"enable_audio_output": False, "thinker_config.vision_config.deepstack_visual_indexes": []},
        ),
    ],
)
def test_checkpoint_loads_in_transformers_with_nothing_missing(
    load: Callable[[Path], Any], tmp_path: Path, layout: str, dtype: str, overrides: dict[str, Any]
) -> None:
    path = new_checkpoint(tmp_path / "new", seed=3, layout=layout, dtype=dtype, overrides=overrides)
    model, checkpoint = load(path), Checkpoint(path)
    weight = model.thinker.model.language_model.layers[2].mlp.experts.down_proj[1]
    if layout == "fused":
        stored = checkpoint.read("thinker.model.layers.2.mlp.experts.down_proj")[1]
    else:
        stored = checkpoint.read("thinker.model.layers.2.mlp.experts.1.down_proj.weight")
    np.testing.assert_array_equal(weight.detach().numpy(), stored)
    assert sum(parameter.numel() for parameter in model.parameters()) == sum(
        checkpoint.read(name).size for name in checkpoint.names()
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_greedy_answers_are_varied_and_audible(
    load: Callable[[Path], Any], tmp_path: Path, seed: int
) -> None:
    torch = pytest.importorskip("torch")
    path = new_checkpoint(tmp_path / "new", seed=seed)
    model, tokenizer = load(path), Tokenizer.from_file(str(path / "tokenizer.json"))
    decoded: list[Any] = []
    decode = model.code2wav.chunked_decode
    model.code2wav.chunked_decode = lambda codes, **options: (
        decoded.append(codes[0]),
        decode(codes, **options),
    )[1]
    prompt = torch.tensor(
        [tokenizer.encode("<|im_start|>user\nHello, how are you?<|im_end|>\n<|im_start|>assistant\n").ids]
    )
    answer, wave = model.generate(
        input_ids=prompt,
        thinker_max_new_tokens=32,
        thinker_do_sample=False,
        thinker_eos_token_id=model.config.im_end_token_id,
        talker_do_sample=False,
        talker_max_new_tokens=21,
    )
    ids = answer[0, prompt.shape[1] :].tolist()
    assert len(ids) == 32 and len(set(ids)) >= 20
    assert "\ufffd" not in "".join(tokenizer.decode([token]) for token in ids)
    assert decoded[0].shape == (16, 20)
    assert min(len(set(group.tolist())) for group in decoded[0]) >= 12
    level = wave.flatten()
    assert 0.03 < level.std() < 0.25 and level.abs().max() < 1 and level.mean().abs() < 0.03


def test_same_seed_gives_identical_files_and_another_seed_other_weights(tiny: Path, tmp_path: Path) -> None:
    again, other = new_checkpoint(tmp_path / "again"), new_checkpoint(tmp_path / "other", seed=1)
    names = sorted(file.name for file in tiny.iterdir())
    assert filecmp.cmpfiles(tiny, again, names, shallow=False) == (names, [], [])
    first, second = Checkpoint(tiny), Checkpoint(other)
    assert first.names() == second.names()
    assert not {first.digest(name) for name in first.names()} & {
        second.digest(name) for name in second.names()
    }


def test_values_do_not_depend_on_the_layout_or_on_other_tensors(tiny: Path, tmp_path: Path) -> None:
    other = Checkpoint(
        new_checkpoint(tmp_path / "new", overrides={"thinker_config.text_config.mlp_only_layers": [0]})
    )
    first = Checkpoint(tiny)
    name = "talker.model.layers.1.mlp.experts.7.up_proj.weight"
    assert first.digest(name) == other.digest(name)


def test_tensors_are_published_per_expert_in_two_shards(tiny: Path) -> None:
    index = json.loads((tiny / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    checkpoint = Checkpoint(tiny)
    assert index["metadata"]["total_size"] == 2 * sum(
        checkpoint.read(name).size for name in checkpoint.names()
    )
    shapes = {
        "thinker.lm_head.weight": (2048, 128),
        "thinker.model.layers.3.mlp.experts.7.gate_proj.weight": (64, 128),
        "thinker.visual.merger.ln_q.weight": (64,),
        "thinker.visual.merger_list.0.mlp.2.bias": (128,),
        "thinker.audio_tower.conv_out.weight": (64, 512),
        "talker.model.layers.2.mlp.shared_expert_gate.weight": (1, 96),
        "talker.codec_head.weight": (1280, 96),
        "talker.code_predictor.lm_head.14.weight": (256, 96),
        "code2wav.decoder.1.block.1.conv.weight": (96, 48, 16),
        "code2wav.decoder.6.conv.weight": (1, 6, 7),
        "code2wav.upsample.1.1.gamma": (64,),
    }
    for name, shape in shapes.items():
        checkpoint.expect_shape(name, shape)


@pytest.mark.parametrize(
    ("size", "parameters"), [("tiny", 4_513_181), ("small", 346_811_329), ("medium", 2_679_130_625)]
)
def test_sizes_have_their_parameter_counts(tmp_path: Path, size: str, parameters: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(configuration(size, token_ids(train()), "bfloat16")))
    config = read_config(tmp_path)
    assert config.talker is not None and config.code2wav is not None
    assert sum(tensor.size for tensor in all_tensors(config)) == parameters
    assert config.code2wav.decoder_dim % 2 ** len(config.code2wav.upsample_rates) == 0
    assert config.talker.text.vocab_size == config.code2wav.codebook_size + 1024


def test_role_words_are_one_token_each_and_ids_agree_with_the_configuration(tiny: Path) -> None:
    tokenizer, raw = Tokenizer.from_file(str(tiny / "tokenizer.json")), read_config(tiny).raw
    for role in ROLES:
        assert tokenizer.encode(role).ids == [raw[f"{role}_token_id"]]
    assert tokenizer.token_to_id("<|im_end|>") == raw["im_end_token_id"]
    assert tokenizer.token_to_id("<tts_text_eod>") == raw["tts_eos_token_id"]
    assert tokenizer.token_to_id("<|audio_pad|>") == raw["thinker_config"]["audio_token_id"]
    assert tokenizer.get_vocab_size() <= raw["thinker_config"]["text_config"]["vocab_size"] == 2048
    for token in SPECIAL_TOKENS:
        assert len(tokenizer.encode(token).ids) == 1


def test_tokenizer_gives_back_any_text(tiny: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    for text in TEXTS[:2]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_transformers_tokenizer_agrees(tiny: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours, theirs = (
        Tokenizer.from_file(str(tiny / "tokenizer.json")),
        transformers.AutoTokenizer.from_pretrained(tiny),
    )
    for text in TEXTS:
        assert theirs(text).input_ids == ours.encode(text).ids
    for attribute, token in NAMED_TOKENS.items():
        assert getattr(theirs, attribute) == token
        assert getattr(theirs, f"{attribute}_id") == ours.token_to_id(token)
    assert theirs.eos_token == "<|im_end|>" and theirs.pad_token == "<|endoftext|>"


def test_chat_template_writes_roles_and_one_mark_per_medium(tiny: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    text = tokenizer.apply_chat_template(CONVERSATION, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n"
        "<|audio_start|><|audio_pad|><|audio_end|><|vision_start|><|image_pad|><|vision_end|>What is "
        "this?<|im_end|>\n"
        "<|im_start|>assistant\nA bell.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_feature_extractors_of_transformers_read_their_settings(tiny: Path) -> None:
    transformers = pytest.importorskip("transformers")
    audio = transformers.AutoFeatureExtractor.from_pretrained(tiny)
    assert (audio.feature_size, audio.hop_length, audio.n_fft, audio.sampling_rate) == (128, 160, 400, 16000)
    image = transformers.AutoImageProcessor.from_pretrained(tiny)
    assert (image.patch_size, image.temporal_patch_size, image.merge_size, tuple(image.image_mean)) == (
        16,
        2,
        2,
        (0.5, 0.5, 0.5),
    )
    assert (
        transformers.GenerationConfig.from_pretrained(tiny).eos_token_id == read_config(tiny).im_end_token_id
    )
    video = json.loads((tiny / "video_preprocessor_config.json").read_text())
    assert (
        video["size"] == {"shortest_edge": 131072, "longest_edge": 786432} and not video["do_sample_frames"]
    )


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    new_checkpoint(tmp_path / "new", on_progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (2 * 4_513_181, 2 * 4_513_181)


def test_an_empty_folder_may_be_the_target(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert Checkpoint(new_checkpoint(tmp_path / "empty")).has("thinker.model.norm.weight")


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        new_checkpoint(tmp_path / "new", on_progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"size": "huge"}, "Unknown size 'huge'; expected one of tiny, small, medium"),
        ({"family": "llama"}, "Unknown family 'llama'"),
        ({"dtype": "int8"}, "Unknown dtype 'int8'; expected one of bfloat16, float16, float32"),
        ({"layout": "flat"}, "Unknown layout 'flat'; expected one of per_expert, fused"),
        (
            {"overrides": {"thinker_config.text_config.num_expert": 4}},
            "'thinker_config.text_config.num_expert' names nothing",
        ),
        ({"overrides": {"nowhere.at.all": 4}}, "'nowhere.at.all' names nothing"),
        ({"overrides": {"code2wav_config.num_quantizers": 8}}, "at odds with itself"),
    ],
)
def test_error_leaves_nothing_behind_when_arguments_are_wrong(
    tmp_path: Path, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        new_checkpoint(tmp_path / "new", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_error_names_the_target_when_it_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for name in ("full", "full/file"):
        with pytest.raises(AntiphonError, match="exists and is not an empty folder"):
            new_checkpoint(tmp_path / name)
    with pytest.raises(AntiphonError, match="Cannot write to"):
        new_checkpoint(tmp_path / "full" / "file" / "new")


@pytest.mark.parametrize("kilobytes", [60, 160, 700])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, kilobytes: int) -> None:
    """In the tokenizer, in its vocabulary, and in the weights,
    on a file system of its own that no other process sees.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    code = (
        "import os, subprocess, sys\nfrom antiphon import AntiphonError, new_checkpoint\n"
        "if subprocess.run(['mount', '-t', 'tmpfs', '-o', sys.argv[2], 'tmpfs', sys.argv[1]]).returncode:\n"
        "    sys.exit(77)\n"
        "try:\n    new_checkpoint(sys.argv[1] + '/checkpoint')\nexcept AntiphonError as error:\n"
        "    print(error, os.listdir(sys.argv[1]))\n"
    )
    if shutil.which("unshare") is None:
        pytest.skip("needs the program unshare, to mount a small file system")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(antiphon.__file__).parent.parent), *sys.path])
    }
    command = ["unshare", "--mount", sys.executable, "-c", code, str(disk), f"size={kilobytes}k"]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    if found.returncode == 77 or found.stderr.startswith("unshare:"):
        pytest.skip(f"mounting a small file system is not allowed here: {found.stderr.strip()}")
    assert found.stderr == "" and found.stdout.startswith(
        f"Cannot write the checkpoint to {disk}/checkpoint (No space left on device"
    ), found.stdout
    assert found.stdout.endswith("; free space there or give another folder. []\n")
