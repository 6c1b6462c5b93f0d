from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.frontend.prompt.positions import (
    MediaItem,
    PositionRules,
    interleave,
    multimodal_positions,
)

TEXT, AUDIO, IMAGE, VIDEO, AUDIO_START, AUDIO_END, VISION_START, VISION_END = 5, 10, 11, 12, 20, 21, 22, 23
RULES = PositionRules(AUDIO_START, VISION_START, position_id_per_seconds=13, spatial_merge_size=2)


def tokens_of(item: MediaItem) -> list[int]:
    merged = item.grid[1] * item.grid[2] // 4
    if item.kind == "audio":
        return [AUDIO_START, *[AUDIO] * item.audio_tokens, AUDIO_END]
    if item.kind == "image":
        return [VISION_START, *[IMAGE] * (item.grid[0] * merged), VISION_END]
    if not item.audio_tokens:
        return [VISION_START, *[VIDEO] * (item.grid[0] * merged), VISION_END]
    times = np.repeat(np.arange(item.grid[0]) * item.seconds_per_grid * 13.0, merged)
    order = interleave(times, np.arange(item.audio_tokens, dtype=np.float64))
    return [
        VISION_START,
        AUDIO_START,
        *np.where(order < len(times), VIDEO, AUDIO).tolist(),
        AUDIO_END,
        VISION_END,
    ]


def sequence(media: list[MediaItem]) -> np.ndarray:
    ids = [TEXT] * 4
    for index, item in enumerate(media):
        ids += [*tokens_of(item), *[TEXT] * index]
    return np.array([*ids, TEXT, TEXT], np.int64)


def frames_for(tokens: int) -> int:
    """Mel frames whose audio gives so many tokens."""
    return tokens // 13 * 100 + tokens % 13 * 8


def reference(ids: np.ndarray, media: list[MediaItem], use_audio_in_video: bool) -> tuple[np.ndarray, float]:
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe")
    model = modeling.Qwen3OmniMoePreTrainedModelForConditionalGeneration
    this = SimpleNamespace(
        spatial_merge_size=2,
        config=SimpleNamespace(
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=AUDIO,
            vision_start_token_id=VISION_START,
            audio_start_token_id=AUDIO_START,
            position_id_per_seconds=13,
            audio_config=SimpleNamespace(n_window=50),
        ),
    )
    this.get_llm_pos_ids_for_vision = lambda *arguments: model.get_llm_pos_ids_for_vision(this, *arguments)
    grids = {kind: [item.grid for item in media if item.kind == kind] for kind in ("image", "video")}
    tensors = {kind: torch.tensor(grid) if grid else None for kind, grid in grids.items()}
    lengths = torch.tensor([frames_for(item.audio_tokens) for item in media if item.audio_tokens] or [0])
    seconds = torch.tensor([item.seconds_per_grid for item in media if item.kind == "video"] or [0.0])
    batch = torch.tensor(ids)[None]
    positions, deltas = model.get_rope_index(
        this,
        batch,
        tensors["image"],
        tensors["video"],
        torch.ones_like(batch),
        use_audio_in_video,
        lengths,
        seconds,
    )
    return positions[:, 0].float().numpy(), float(deltas[0, 0]) + len(ids)


CLIP, SHORT_CLIP = MediaItem("audio", audio_tokens=30), MediaItem("audio", audio_tokens=1)
PICTURE, WIDE = MediaItem("image", (1, 4, 6)), MediaItem("image", (1, 2, 20))
VIDEO_WHOLE, VIDEO_FRACTIONAL = MediaItem("video", (3, 4, 4), 1.0), MediaItem("video", (4, 4, 6), 2 / 3)
FILM = MediaItem("video", (3, 4, 4), 1.0, audio_tokens=33)
SLOW_FILM = MediaItem("video", (5, 6, 4), 0.7, audio_tokens=12)
LITTLE_SOUND = MediaItem("video", (1, 8, 8), 1.0, audio_tokens=2)
CASES = {
    "image": [PICTURE],
    "video": [VIDEO_WHOLE],
    "fractional video": [VIDEO_FRACTIONAL, PICTURE],
    "all kinds": [CLIP, PICTURE, VIDEO_FRACTIONAL, SHORT_CLIP, WIDE],
    "vision first": [WIDE, VIDEO_FRACTIONAL, CLIP],
}
CASES_WITH_SOUND = {
    "sound as long as the film": [FILM],
    "film longer than its sound": [SLOW_FILM],
    "tall film with little sound": [LITTLE_SOUND, PICTURE],
    "with a clip and an image": [CLIP, SLOW_FILM, PICTURE, FILM, SHORT_CLIP],
}


@pytest.mark.parametrize("media", CASES.values(), ids=CASES)
def test_positions_equal_get_rope_index(media: list[MediaItem]) -> None:
    check(media, use_audio_in_video=False)


@pytest.mark.parametrize("media", CASES_WITH_SOUND.values(), ids=CASES_WITH_SOUND)
def test_positions_equal_get_rope_index_when_the_video_is_heard(media: list[MediaItem]) -> None:
    check(media, use_audio_in_video=True)


sides = st.integers(1, 4).map(lambda side: 2 * side)
clips = st.builds(MediaItem, st.just("audio"), audio_tokens=st.integers(1, 40))
pictures = st.builds(MediaItem, st.just("image"), st.tuples(st.just(1), sides, sides))


def films(sound: st.SearchStrategy[int]) -> st.SearchStrategy[MediaItem]:
    return st.builds(
        MediaItem,
        st.just("video"),
        st.tuples(st.integers(1, 5), sides, sides),
        st.floats(0.125, 4.0, width=32),
        sound,
    )


@settings(max_examples=50, deadline=None)
@given(
    media=st.lists(st.one_of(clips, pictures, films(st.just(0))), max_size=3),
    last=st.one_of(pictures, films(st.just(0))),
)
def test_positions_equal_get_rope_index_for_any_media(media: list[MediaItem], last: MediaItem) -> None:
    check([*media, last], use_audio_in_video=False)


@settings(max_examples=50, deadline=None)
@given(
    media=st.lists(st.one_of(clips, pictures, films(st.integers(1, 60))), max_size=3),
    last=films(st.integers(1, 60)),
)
def test_positions_equal_get_rope_index_for_any_media_when_videos_are_heard(
    media: list[MediaItem], last: MediaItem
) -> None:
    check([*media, last], use_audio_in_video=True)


def check(media: list[MediaItem], use_audio_in_video: bool) -> None:
    ids = sequence(media)
    positions, following = multimodal_positions(ids, media, RULES)
    expected, expected_following = reference(ids, media, use_audio_in_video)
    assert positions.dtype == np.float32
    np.testing.assert_array_equal(positions, expected)
    assert following == pytest.approx(expected_following, abs=1e-4)


@pytest.mark.parametrize("media", [[], [CLIP, SHORT_CLIP]], ids=["text", "audio"])
def test_positions_count_up_when_there_is_no_vision(media: list[MediaItem]) -> None:
    ids = sequence(media)
    positions, following = multimodal_positions(ids, media, RULES)
    np.testing.assert_array_equal(
        positions, np.broadcast_to(np.arange(len(ids), dtype=np.float32), (3, len(ids)))
    )
    assert following == len(ids)


def test_next_position_is_zero_when_the_sequence_is_empty() -> None:
    positions, following = multimodal_positions(np.zeros(0, np.int64), [], RULES)
    assert positions.shape == (3, 0) and following == 0.0


TEXTUAL = PositionRules(
    AUDIO_START,
    VISION_START,
    position_id_per_seconds=13,
    spatial_merge_size=2,
    textual_time=True,
    image=IMAGE,
    video=VIDEO,
)


def timed_tokens_of(item: MediaItem) -> list[int]:
    """As `tokens_of`, where each temporal patch has its timestamp and marks; a heard one its own audio."""
    merged = item.grid[1] * item.grid[2] // 4
    if item.kind != "video":
        return tokens_of(item)
    sound = [AUDIO_START, *[AUDIO] * item.audio_tokens, AUDIO_END] if item.audio_tokens else []
    return [TEXT, TEXT, VISION_START, *[VIDEO] * merged, VISION_END, *sound] * item.grid[0]


@settings(max_examples=100, deadline=None)
@given(media=st.lists(st.one_of(clips, pictures, films(st.integers(0, 9))), max_size=5))
def test_positions_equal_the_second_get_rope_index_when_text_tells_the_time(media: list[MediaItem]) -> None:
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.qwen3_5_moe.modeling_qwen3_5_moe")
    this = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    this.get_vision_position_ids = lambda *arguments, **options: (
        modeling.Qwen3_5MoeModel.get_vision_position_ids(this, *arguments, **options)
    )
    ids = np.array([TEXT, *(token for item in media for token in [*timed_tokens_of(item), TEXT])], np.int64)
    # audio counts up like text
    kinds = torch.tensor(np.where(ids == IMAGE, 1, np.where(ids == VIDEO, 2, 0)))[None]
    grids = {kind: [item.grid for item in media if item.kind == kind] for kind in ("image", "video")}
    tensors = [torch.tensor(grids[kind]) if grids[kind] else None for kind in ("image", "video")]
    expected, deltas = modeling.Qwen3_5MoeModel.get_rope_index(this, torch.tensor(ids)[None], kinds, *tensors)
    positions, following = multimodal_positions(ids, media, TEXTUAL)
    assert positions.dtype == np.float32
    np.testing.assert_array_equal(positions, expected[:, 0].numpy())
    assert following == float(deltas[0, 0]) + len(ids)


def test_next_position_is_zero_when_the_sequence_is_empty_and_text_tells_the_time() -> None:
    positions, following = multimodal_positions(np.zeros(0, np.int64), [], TEXTUAL)
    assert positions.shape == (3, 0) and following == 0.0
