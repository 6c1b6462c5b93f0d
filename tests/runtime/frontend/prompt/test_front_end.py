from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.prompt import media_loading
from antiphon.runtime.frontend.prompt.front_end import FrontEnd
from antiphon.runtime.frontend.vision.frame_store import FrameStore
from antiphon.runtime.frontend.vision.video import Video

from ..media_parts import clip, frames, picture, sound, text
from ..vision.test_video import grey_film


def film(*shape: int) -> dict[str, Any]:
    return {"type": "video", "video": frames(shape[1], shape[2], shape[0])}


class Reference:
    """The Hugging Face processor; only the pixels of videos, which need torchvision, are left out."""

    def __init__(self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
        pil = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
        processor = transformers.Qwen3OmniMoeProcessor
        monkeypatch.setattr(
            processor, "check_argument_for_proper_class", lambda self, name, argument: type(argument)
        )
        self.grids: list[tuple[int, int, int]] = []

        class VideoProcessor:
            temporal_patch_size = merge_size = 2

            def __call__(this, videos: Any, **options: Any) -> dict[str, Any]:
                self.video_options = options
                return {"video_grid_thw": torch.tensor(self.grids)}

        self.processor = processor(
            pil.Qwen2VLImageProcessorPil.from_pretrained(tiny_checkpoint),
            VideoProcessor(),
            transformers.WhisperFeatureExtractor.from_pretrained(tiny_checkpoint),
            transformers.AutoTokenizer.from_pretrained(tiny_checkpoint),
            chat_template=(tiny_checkpoint / "chat_template.jinja").read_text(),
        )

    def __call__(self, messages: list[dict], **media: Any) -> Any:
        rendered = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.processor(text=rendered, **{name: value for name, value in media.items() if value})


@pytest.fixture()
def reference(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Reference:
    return Reference(tiny_checkpoint, monkeypatch)


def media_of(messages: list[dict], kind: str) -> list[np.ndarray]:
    return [part[kind] for message in messages for part in message["content"] if part["type"] == kind]


CONVERSATIONS = {
    "a clip": [{"role": "user", "content": [sound(20000), text("what?")]}],
    "three clips over two turns": [
        {"role": "user", "content": [sound(16000), sound(33333, 1)]},
        {"role": "assistant", "content": [text("ok")]},
        {"role": "user", "content": [sound(900, 2)]},
    ],
    "images": [{"role": "user", "content": [picture(70, 100), text("and"), picture(200, 130)]}],
    "all kinds": [
        {
            "role": "user",
            "content": [
                text("see"),
                picture(64, 64),
                sound(48000),
                film(5, 64, 64),
                text("?"),
                film(2, 40, 200),
                sound(1600),
            ],
        }
    ],
}


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_ids_and_features_equal_the_reference_processor(
    front_end: FrontEnd, reference: Reference, messages: list[dict]
) -> None:
    prompt = front_end.prompt(messages)
    reference.grids = [item.grid for item in prompt.media if item.kind == "video"]
    found = reference(
        messages,
        audio=media_of(messages, "audio"),
        images=media_of(messages, "image"),
        videos=media_of(messages, "video"),
        fps=2.0,
    )
    assert prompt.token_ids.tolist() == found["input_ids"][0]
    pixels = [
        call.feeds()["pixels"][0]
        for call in prompt.calls
        if call.stage == "vision_encoder" and prompt.token_ids[call.rows[0]] == front_end.image
    ]
    if pixels:
        np.testing.assert_allclose(np.concatenate(pixels), found["pixel_values"], rtol=0, atol=1e-6)
    if "input_features" in found:
        features, mask = (
            np.asarray(found["input_features"]),
            np.asarray(found["feature_attention_mask"]).astype(bool),
        )
        valid = np.concatenate([clip[:, kept] for clip, kept in zip(features, mask, strict=True)], axis=1)
        chunks = (
            np.concatenate([call.feeds()["chunks"] for call in prompt.calls if call.stage == "audio_encoder"])
            .transpose(1, 0, 2)
            .reshape(128, -1)
        )
        ours = chunks[:, np.abs(chunks).sum(axis=0) > 0]  # padding is all zeros; frames of noise are not
        np.testing.assert_allclose(ours, valid, rtol=0, atol=1e-5)


def test_ids_and_positions_equal_the_reference_when_videos_are_heard(
    front_end: FrontEnd, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    sounds = [clip(52000), clip(7000, 1)]
    grids = [(3, 4, 6), (4, 8, 4)]
    films = iter(
        Video(
            FrameStore(np.zeros((2 * time, rows * 16, columns * 16, 3), np.uint8)),
            3.0,
            samples,
            np.arange(2 * time) / 3,
        )
        for (time, rows, columns), samples in zip(grids, sounds, strict=True)
    )
    monkeypatch.setattr(media_loading, "read_video", lambda *arguments: next(films))
    content = [
        {"type": "video", "video": "a"},
        text("then"),
        sound(24000, 2),
        {"type": "video", "video": "b"},
        picture(64, 64),
        text("?"),
    ]
    messages = [{"role": "user", "content": content}]
    prompt = front_end.prompt(messages, use_audio_in_video=True, video_fps=3.0)

    reference.grids = grids
    found = reference(
        messages,
        audio=[sounds[0], content[2]["audio"], sounds[1]],
        images=media_of(messages, "image"),
        videos=[frames(8, 8, 2)] * 2,
        audio_from_video_indices=[0, None, 1],
        load_audio_from_video=True,
        fps=3.0,
    )
    assert prompt.token_ids.tolist() == found["input_ids"][0]
    assert reference.video_options["size"] == {
        "shortest_edge": front_end._video_settings.min_pixels,
        "longest_edge": front_end._video_settings.max_pixels,
    }
    check_positions(front_end, prompt.token_ids, prompt.positions, found, use_audio_in_video=True)

    talker_ids = np.concatenate([prompt.token_ids, np.full(9, front_end._tts_pad)])
    talker_positions, following = front_end.talker_positions(prompt.token_ids, prompt.media)
    check_positions(front_end, talker_ids, talker_positions, found, use_audio_in_video=True)
    assert following == talker_positions.max() + 1


def check_positions(
    front_end: FrontEnd, token_ids: np.ndarray, positions: np.ndarray, found: Any, use_audio_in_video: bool
) -> None:
    import torch
    from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as modeling

    model = modeling.Qwen3OmniMoePreTrainedModelForConditionalGeneration
    rules = front_end._thinker_rules
    this = SimpleNamespace(
        spatial_merge_size=rules.spatial_merge_size,
        config=SimpleNamespace(
            image_token_id=front_end.image,
            video_token_id=front_end.video,
            audio_token_id=front_end.audio,
            vision_start_token_id=rules.vision_start,
            audio_start_token_id=rules.audio_start,
            position_id_per_seconds=rules.position_id_per_seconds,
            audio_config=SimpleNamespace(n_window=50),
        ),
    )
    this.get_llm_pos_ids_for_vision = lambda *arguments: model.get_llm_pos_ids_for_vision(this, *arguments)
    batch = torch.tensor(token_ids)[None]
    lengths = torch.tensor(np.asarray(found["feature_attention_mask"]).sum(-1))
    seconds = torch.tensor([float(value) for value in found["video_second_per_grid"]])
    grids = [torch.tensor(np.asarray(found[name])) for name in ("image_grid_thw", "video_grid_thw")]
    expected, _ = model.get_rope_index(
        this, batch, *grids, torch.ones_like(batch), use_audio_in_video, lengths, seconds
    )
    np.testing.assert_array_equal(positions, expected[:, 0].numpy())


def test_rows_of_the_calls_are_the_placeholders(front_end: FrontEnd) -> None:
    prompt = front_end.prompt(CONVERSATIONS["all kinds"])
    for name, stage, kinds in (
        ("audio", "audio_encoder", 1),
        ("image", "vision_encoder", 1),
        ("video", "vision_encoder", 2),
    ):
        token = getattr(front_end, name)
        calls = [
            call for call in prompt.calls if call.stage == stage and prompt.token_ids[call.rows[0]] == token
        ]
        assert len(calls) == kinds
        assert (
            np.concatenate([call.rows for call in calls]).tolist()
            == np.flatnonzero(prompt.token_ids == token).tolist()
        )
    for call in prompt.calls:
        feeds = call.feeds()
        features = (
            len(feeds["output_index"])
            if call.stage == "audio_encoder"
            else feeds["pixels"].shape[0] * feeds["pixels"].shape[1] // 4
        )
        assert len(call.rows) == features
    assert [item.kind for item in prompt.media] == ["image", "audio", "video", "video", "audio"]


def test_long_audio_is_split_into_calls_that_fill_all_rows(front_end: FrontEnd) -> None:
    prompt = front_end.prompt([{"role": "user", "content": [sound(16000 * 70), sound(16000)]}])
    assert len(prompt.calls) > 1
    assert (
        np.concatenate([call.rows for call in prompt.calls]).tolist()
        == np.flatnonzero(prompt.token_ids == front_end.audio).tolist()
    )


def test_text_alone_has_plain_positions_and_no_calls(front_end: FrontEnd) -> None:
    prompt = front_end.prompt([{"role": "user", "content": "hello"}])
    tokens = len(prompt.token_ids)
    assert (
        prompt.token_ids.dtype == np.int64
        and prompt.positions.dtype == np.float32
        and prompt.calls == ()
        and prompt.media == ()
    )
    assert prompt.positions.tolist() == [list(range(tokens))] * 3 and prompt.next_position == tokens


def test_typed_placeholders_are_text(front_end: FrontEnd) -> None:
    prompt = front_end.prompt(
        [{"role": "user", "content": [text("<|audio_pad|><|image_pad|>"), picture(64, 64)]}]
    )
    assert (prompt.token_ids == front_end.audio).sum() == 0 and len(prompt.media) == 1


def test_a_continuation_after_an_answer_equals_the_whole_conversation(front_end: FrontEnd) -> None:
    question, answer, more = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [picture(64, 64), text("c")]},
    )
    first, following, whole = (
        front_end.prompt([question]),
        front_end.continuation([more]),
        front_end.prompt([question, answer, more]),
    )
    spoken = len(whole.token_ids) - len(first.token_ids) - len(front_end.turn_end) - len(following.token_ids)
    assert spoken == 1
    parts = [
        first.token_ids,
        whole.token_ids[len(first.token_ids) :][:spoken],
        front_end.turn_end,
        following.token_ids,
    ]
    assert np.concatenate(parts).tolist() == whole.token_ids.tolist()
    start = len(whole.token_ids) - len(following.token_ids)
    np.testing.assert_array_equal(following.positions + start, whole.positions[:, start:])
    assert following.next_position + start == whole.next_position


def test_talker_positions_are_those_of_the_user_turns_and_the_answer_rows(front_end: FrontEnd) -> None:
    plain, following = front_end.talker_positions(np.array([5, 6, 7]), ())
    assert plain.shape == (3, 12) and following == 12.0 and plain[2].tolist() == list(range(12))
    user = {"role": "user", "content": [sound(16000), picture(96, 64), text("?")]}
    system = {"role": "system", "content": [text("s"), picture(64, 64)]}
    alone, both = (
        front_end.prompt([user], add_generation_prompt=False),
        front_end.prompt([system, user], add_generation_prompt=False),
    )
    positions, following = front_end.talker_positions(alone.token_ids, both.media)
    np.testing.assert_array_equal(positions[:, :-9], alone.positions)
    np.testing.assert_array_equal(
        positions[:, -9:], alone.next_position + np.broadcast_to(np.arange(9, dtype=np.float32), (3, 9))
    )
    assert following == alone.next_position + 9


def test_a_template_that_drops_media_is_named(
    front_end: FrontEnd, frontend_folder: Path, tmp_path: Path
) -> None:
    for name in ("tokenizer.json", "frontend.json"):
        (tmp_path / name).write_bytes((frontend_folder / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ messages | length }}")
    with pytest.raises(AntiphonError, match="wrote 0 media placeholders for 1 pieces"):
        FrontEnd(tmp_path).prompt([{"role": "user", "content": [picture(64, 64)]}])


def test_an_unusable_folder_is_named_in_one_sentence(frontend_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AntiphonError, match="No front end at"):
        FrontEnd(tmp_path)
    path, constants = tmp_path / "frontend.json", json.loads((frontend_folder / "frontend.json").read_text())
    for content, sentence in [
        ("{", "not valid JSON"),
        ("[]", "holds a list where an object was expected"),
        (
            json.dumps({**constants, "audio": {**constants["audio"], "hop_length": 0}}),
            "audio.hop_length is 0, expected an integer from 1 to",
        ),
        (json.dumps({**constants, "schema": 99}), "not of front-end schema"),
        (json.dumps({**constants, "ids": {}}), "lacks or misspells 'im_start'"),
        (json.dumps(constants), "No chat template"),
    ]:
        path.write_text(content)
        with pytest.raises(AntiphonError, match=sentence):
            FrontEnd(tmp_path)


def test_bad_video_rates_are_refused(front_end: FrontEnd) -> None:
    with pytest.raises(AntiphonError, match="video_fps is 0"):
        front_end.prompt([{"role": "user", "content": "x"}], video_fps=0)


def test_importing_the_front_end_loads_no_heavy_library() -> None:
    root = str(Path(media_loading.__file__).resolve().parents[3])
    script = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('antiphon', {root!r} + '/__init__.py', "
        f"submodule_search_locations=[{root!r}])\n"
        "package = importlib.util.module_from_spec(spec)\n"
        "sys.modules['antiphon'] = package\n"
        "import antiphon.runtime.frontend.prompt.front_end\n"
        "print(sorted({'torch', 'transformers', 'onnx', 'onnxruntime', 'PIL', 'av', "
        "'librosa'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_options_of_a_part_change_its_tokens_alone(front_end: FrontEnd, tmp_path: Path) -> None:
    path = grey_film(tmp_path / "a.mp4")  # of 2 s

    def seen(**options: object) -> int:
        ids = front_end.prompt(
            [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": str(path), **options}}]}]
        ).token_ids
        return int((ids == front_end.video).sum())

    pair = seen(fps=1)  # the tokens of two frames
    assert [seen(), seen(fps=4), seen(nframes=6), seen(max_frames=2), seen(video_end=0.9)] == [
        2 * pair,
        4 * pair,
        3 * pair,
        pair,
        pair,
    ]


def test_the_span_of_a_clip_changes_its_tokens(front_end: FrontEnd) -> None:
    def heard(**options: object) -> int:
        ids = front_end.prompt([{"role": "user", "content": [{**sound(32000), **options}]}]).token_ids
        return int((ids == front_end.audio).sum())

    assert (heard(), heard(audio_end=1), heard(audio_start=0.5, audio_end=1.5), heard(audio_start=1.0)) == (
        26,
        13,
        13,
        13,
    )
