"""Prompts of Qwen3.5-Omni: a video patch by patch with its time in text, positions as in HF, open turns,
and features that are made when wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.prompt import media_loading
from antiphon.runtime.frontend.prompt.chat_template import ChatTemplate
from antiphon.runtime.frontend.prompt.front_end import FrontEnd, Prompt
from antiphon.runtime.frontend.vision.frame_store import FrameStore
from antiphon.runtime.frontend.vision.picture_size import smart_resize
from antiphon.runtime.frontend.vision.video import Video

from .media_parts import clip, frames, picture, sound, text

Timed = Callable[..., FrontEnd]
AUDIO_RATE = 16000


def film(count: int, height: int, width: int, rate: float = 2.0) -> dict[str, Any]:
    return {"type": "video", "video": frames(height, width, count), "fps": rate}


def user(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


CONVERSATIONS = {
    "a film": user(film(6, 64, 96), text("what?")),
    "words before a film": user(
        text("Look: <"), film(5, 64, 64, 3.0), text("<1.0 seconds>"), film(2, 96, 64)
    ),
    "all kinds": user(
        picture(64, 64), film(3, 64, 64), sound(24000), picture(96, 160), film(4, 40, 200, 1.0), text("?")
    ),
    "two turns": [
        *user(film(2, 64, 64)),
        {"role": "assistant", "content": [text("ok")]},
        *user(film(1, 64, 64), sound(900)),
    ],
}


class Reference:
    """Qwen3VLProcessor; only the pixels of videos, which need torchvision, are left out.

    Audio is text to it.
    """

    def __init__(self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
        pil = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
        processor = pytest.importorskip("transformers.models.qwen3_vl.processing_qwen3_vl").Qwen3VLProcessor
        monkeypatch.setattr(
            processor, "check_argument_for_proper_class", lambda self, name, argument: type(argument)
        )
        self.films: list[tuple[Any, dict[str, Any]]] = []

        class VideoProcessor:
            temporal_patch_size = merge_size = 2

            def __call__(this, videos: Any, **options: Any) -> dict[str, Any]:
                metadata = [
                    SimpleNamespace(fps=part["fps"], frames_indices=list(range(len(part["video"]))))
                    for _, part in self.films
                ]
                return {
                    "video_grid_thw": self.torch.tensor([grid for grid, _ in self.films]),
                    "video_metadata": metadata,
                }

        self.processor = processor(
            pil.Qwen2VLImageProcessorPil.from_pretrained(tiny_checkpoint),
            transformers.AutoTokenizer.from_pretrained(tiny_checkpoint),
            VideoProcessor(),
            chat_template=(tiny_checkpoint / "chat_template.jinja").read_text(),
        )

    def __call__(self, messages: list[dict], prompt: Prompt) -> tuple[list[int], np.ndarray]:
        """Ids and positions [3, tokens]."""
        parts = [part for message in messages for part in message["content"]]
        clips = iter([item.audio_tokens for item in prompt.media if item.kind == "audio"])
        self.films = list(
            zip(
                [item.grid for item in prompt.media if item.kind == "video"],
                [part for part in parts if "video" in part],
                strict=True,
            )
        )
        rendered = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        for count in clips:
            rendered = rendered.replace(
                "<|audio_start|><|audio_pad|><|audio_end|>",
                f"<|audio_start|>{'<|audio_pad|>' * count}</end>",
                1,
            )
        # transformers since 5 leaves the template's marks around the marked patches; 4.57
        # and Antiphon replace them.
        rendered = rendered.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>").replace(
            "</end>", "<|audio_end|>"
        )
        videos = [frames(8, 8, 2)] * len(self.films)
        found = self.processor(
            text=rendered,
            images=[part["image"] for part in parts if "image" in part] or None,
            videos=videos or None,
        )
        model = pytest.importorskip("transformers.models.qwen3_5_moe.modeling_qwen3_5_moe").Qwen3_5MoeModel
        this = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
        this.get_vision_position_ids = lambda *arguments, **options: model.get_vision_position_ids(
            this, *arguments, **options
        )
        grids = [
            self.torch.tensor(np.asarray(found[name])) if name in found else None
            for name in ("image_grid_thw", "video_grid_thw")
        ]
        ids, kinds = (
            self.torch.tensor(np.asarray(found[name])) for name in ("input_ids", "mm_token_type_ids")
        )
        return ids[0].tolist(), model.get_rope_index(this, ids, kinds, *grids)[0][:, 0].numpy()


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_ids_and_positions_equal_the_reference(
    timed: Timed, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, messages: list[dict]
) -> None:
    prompt = timed().prompt(messages)
    ids, positions = Reference(tiny_checkpoint, monkeypatch)(messages, prompt)
    assert prompt.token_ids.tolist() == ids
    np.testing.assert_array_equal(prompt.positions, positions)
    assert prompt.next_position == positions.max() + 1


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_rows_of_the_calls_are_the_placeholders(timed: Timed, messages: list[dict]) -> None:
    front_end = timed(audio_timestamp_seconds=0.5)
    prompt = front_end.prompt(messages)
    rows = np.concatenate([call.rows for call in prompt.calls])
    assert (
        sorted(rows.tolist())
        == np.flatnonzero(
            np.isin(prompt.token_ids, [front_end.audio, front_end.image, front_end.video])
        ).tolist()
    )
    for call in prompt.calls:
        feeds = call.feeds()
        features = (
            len(feeds["output_index"])
            if call.stage == "audio_encoder"
            else feeds["pixels"].shape[0] * feeds["pixels"].shape[1] // 4
        )
        assert len(call.rows) == features


def test_a_heard_video_has_its_audio_after_each_patch(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    front_end = timed("{seconds:.1f}")
    monkeypatch.setattr(
        media_loading,
        "read_video",
        lambda *arguments: Video(
            FrameStore(frames(64, 64, 4)), 2.0, clip(AUDIO_RATE * 3 // 2), np.arange(4) / 2
        ),
    )
    prompt = front_end.prompt(
        user({"type": "video", "video": "a"}), use_audio_in_video=True, add_generation_prompt=False
    )
    marked = [front_end._tokenizer.token(int(index)) for index in prompt.token_ids]
    shown = (
        "".join(marked)
        .replace("<|vision_start|>", "[")
        .replace("<|vision_end|>", "]")
        .replace("<|audio_start|>", "(")
        .replace("<|audio_end|>", ")")
    )
    shown = shown.replace("<|video_pad|>", "v").replace("<|audio_pad|>", "a")
    # times 0.25 and 1.25 s, to one digit as Python rounds
    assert shown == "<|im_start|>userĊ0.2[vvvv](aaaaaaa)1.2[vvvv](aaaa)<|im_end|>Ċ"
    assert prompt.media[0].audio_tokens == 11
    (heard,) = [call for call in prompt.calls if call.stage == "audio_encoder"]
    assert heard.rows.tolist() == np.flatnonzero(prompt.token_ids == front_end.audio).tolist()
    vision = prompt.positions[:, prompt.token_ids == front_end.video]
    np.testing.assert_array_equal(vision[:, :4] - vision[0, 0], [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]])
    audio = prompt.positions[:, prompt.token_ids == front_end.audio]
    assert (audio[0] == audio[1]).all() and (np.diff(audio[0, :7]) == 1).all()


def test_audio_alone_tells_the_time_when_asked(timed: Timed) -> None:
    messages = user(sound(AUDIO_RATE * 3))
    plain, told = timed().prompt(messages), timed(audio_timestamp_seconds=1.0).prompt(messages)
    stamps = [timed()._tokenizer.encode_text(f"<{second}.0 seconds>").tolist() for second in range(3)]
    audio = timed().audio
    start = plain.token_ids.tolist().index(audio)
    assert plain.token_ids[start : start + 21].tolist() == [audio] * 21
    expected = [
        *plain.token_ids[:start],
        *(token for stamp in stamps for token in [*stamp, *[audio] * 7]),
        *plain.token_ids[start + 21 :],
    ]
    assert told.token_ids.tolist() == expected
    np.testing.assert_array_equal(
        told.positions, np.broadcast_to(np.arange(len(expected), dtype=np.float32), (3, len(expected)))
    )


def test_400_seconds_of_720p_at_one_frame_a_second_fit_into_the_context(
    timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    front_end = timed()
    settings = front_end._video_settings
    still = np.zeros((*smart_resize(720, 1280, 32, settings.min_pixels, settings.max_pixels), 3), np.uint8)
    monkeypatch.setattr(
        media_loading,
        "read_video",
        lambda *arguments: Video(FrameStore([still] * 400), 1.0, None, np.arange(400)),
    )
    prompt = front_end.prompt(user({"type": "video", "video": "a"}), video_fps=1.0)
    assert prompt.media[0].grid == (200, 40, 72)
    assert (prompt.token_ids == front_end.video).sum() == 144_000  # 200 temporal patches of 20 x 36
    marked = front_end._time.marked
    assert np.isin(prompt.token_ids, [marked.vision_start, marked.vision_end]).sum() == 400
    assert len(prompt.token_ids) < 150_000  # with the timestamps; 146,553 in the tiny tokenizer


OPEN_TURNS = {
    "audio alone": ([], [16000], None),
    "audio and words": ([], [16000, 8000, 40000], "and?"),
    "after a system message": ([{"role": "system", "content": "Be brief."}], [20000, 16000], None),
    "after a turn with a picture": (
        [*user(picture(64, 96)), {"role": "assistant", "content": "ok"}],
        [16000, 4800],
        "so?",
    ),
}


@pytest.mark.parametrize("seconds", [0.0, 0.5])
@pytest.mark.parametrize(("earlier", "lengths", "words"), OPEN_TURNS.values(), ids=OPEN_TURNS)
@pytest.mark.parametrize("is_timed", [True, False])
def test_the_pieces_of_an_open_turn_join_to_one_prompt(
    timed: Timed,
    front_end: FrontEnd,
    earlier: list[dict],
    lengths: list[int],
    words: str | None,
    seconds: float,
    is_timed: bool,
) -> None:
    chosen = timed(audio_timestamp_seconds=seconds) if is_timed else front_end
    whole = chosen.prompt(
        [*earlier, *user(sound(sum(lengths)), *([text(words)] if words else []))], add_generation_prompt=False
    )
    tokens = whole.media[-1].audio_tokens
    counts = [tokens // len(lengths)] * (len(lengths) - 1)
    counts.append(tokens - sum(counts))
    pieces, heard = [chosen.open_turn(earlier)], 0
    for count in counts:
        pieces.append(chosen.audio_piece([{"output_index": np.arange(count)}], heard))
        heard += count
    pieces.append(chosen.close_turn(heard, words))
    check_joined(pieces, whole, chosen)


def check_joined(pieces: list[Prompt], whole: Prompt, front_end: FrontEnd) -> None:
    assert np.concatenate([piece.token_ids for piece in pieces]).tolist() == whole.token_ids.tolist()
    base, shifted, rows, offset = 0.0, [], [], 0
    for piece in pieces:
        shifted.append(piece.positions + np.float32(base))
        rows += [
            offset + row
            for call in piece.calls
            if call.stage == "audio_encoder"
            for row in call.rows.tolist()
        ]
        base, offset = base + piece.next_position, offset + len(piece.token_ids)
    np.testing.assert_array_equal(np.concatenate(shifted, axis=1), whole.positions)
    assert base == whole.next_position
    assert rows == np.flatnonzero(whole.token_ids == front_end.audio).tolist()
    assert [item for piece in pieces for item in piece.media] == list(whole.media)


def test_an_open_turn_after_an_answer_equals_a_continuation(timed: Timed) -> None:
    front_end = timed()
    whole = front_end.continuation(user(sound(16000)), add_generation_prompt=False)
    pieces = [
        front_end.open_turn(is_first=False),
        front_end.audio_piece([whole.calls[0].feeds()]),
        front_end.close_turn(7),
    ]
    check_joined(pieces, whole, front_end)


def test_live_audio_gives_the_turn_of_the_whole_recording(timed: Timed) -> None:
    """Its loudest moment comes first, so that the features are the same, too."""
    front_end, samples = timed(audio_timestamp_seconds=5.0), clip(16000 * 10)
    samples[200] = 1.0
    whole = front_end.prompt(user({"type": "audio", "audio": samples}), add_generation_prompt=False)
    live, heard, pieces = front_end.live_audio(), 0, [front_end.open_turn()]
    for part in (*np.array_split(samples, 7), None):
        pieces.append(front_end.audio_piece(live.finish() if part is None else live.push(part), heard))
        heard = live.tokens
    pieces.append(front_end.close_turn(heard))
    check_joined(pieces, whole, front_end)
    found = np.concatenate([call.feeds()["chunks"] for piece in pieces for call in piece.calls])
    np.testing.assert_array_equal(found, np.concatenate([call.feeds()["chunks"] for call in whole.calls]))


def test_features_are_made_when_wanted_and_again(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    from antiphon.runtime.frontend.prompt import encoder_calls

    made: list[int] = []
    patches = encoder_calls.frame_patches
    monkeypatch.setattr(
        encoder_calls,
        "frame_patches",
        lambda frames, settings: (made.append(len(frames)), patches(frames, settings))[1],
    )
    monkeypatch.setattr(
        encoder_calls, "vision_spans", lambda grid: ((index, index + 1) for index in range(grid[0]))
    )
    prompt = timed().prompt(user(film(5, 64, 64)))
    assert made == [] and len(prompt.calls) == 3
    first = [call.feeds()["pixels"] for call in prompt.calls]
    assert made == [2, 2, 1]
    for call, pixels in zip(reversed(prompt.calls), reversed(first), strict=True):
        np.testing.assert_array_equal(call.feeds()["pixels"], pixels)


def test_a_template_without_marks_around_videos_is_named(
    timed: Timed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front_end = timed()
    monkeypatch.setattr(front_end._tokenizer, "_template", ChatTemplate("<|video_pad|>"))
    with pytest.raises(AntiphonError, match="0 times for 1 videos"):
        front_end.prompt(user(film(2, 64, 64)))
    monkeypatch.setattr(front_end._tokenizer, "_template", ChatTemplate("hello"))
    with pytest.raises(AntiphonError, match="no placeholder for audio"):
        front_end.open_turn()


def test_thinking_is_switched_off_in_templates_that_know_it(
    timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    front_end = timed()
    monkeypatch.setattr(
        front_end._tokenizer,
        "_template",
        ChatTemplate("{{ 'fast' if enable_thinking is false else 'slow' }}"),
    )
    assert front_end.decode(front_end.prompt(user(text("x"))).token_ids) == "fast"
