"""Audio and video to text against HF, in whatever chunks the prompt is read;
and what long contexts take and refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("av")

from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeModel

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.engines.base import Engine
from antiphon.runtime.frontend.prompt.front_end import Prompt
from antiphon.runtime.omni import Omni, load
from antiphon.runtime.states.pool import BLOCK, UNLIMITED, StatePool
from antiphon.scripts.benchmarks.video import write_film

from .reference import DECISIVE
from .slow_loop import SlowLoop, margin

TOLERANCE = 1e-4
TOKENS = 12


class Watched:
    """An engine that keeps the logits of every run where it has them, and counts its runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.entry = engine, engine.entry
        self.runs = 0
        self.logits: list[np.ndarray] = []

    def new_states(self, rows: int = 1, capacity: int = UNLIMITED) -> StatePool:
        return self._engine.new_states(rows, capacity)

    def close(self) -> None:
        self._engine.close()

    def run(
        self, feeds: Mapping[str, np.ndarray], slots: Any = (), outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        self.runs += 1
        has_logits = outputs is not None and any(spec.name == "logits" for spec in self.entry.outputs)
        result = self._engine.run(
            feeds, slots, (*outputs, "logits") if outputs is not None and has_logits else outputs
        )
        self.logits += list(result["logits"]) if has_logits else []
        return result


@pytest.fixture(scope="module")
def omni(hybrid_bundle: Path) -> Iterator[Omni]:
    with load(hybrid_bundle, threads=1) as omni:
        yield omni


@pytest.fixture(scope="module")
def reference(hybrid_checkpoint: Path) -> SlowLoop:
    return SlowLoop(hybrid_checkpoint)


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A clip, a film with its own sound, and a question."""
    film = write_film(tmp_path_factory.mktemp("film") / "film.mp4", 4, 64, frames_per_second=2)
    time = np.arange(24000) / 16000
    clip = (0.2 * np.sin(2 * np.pi * (200 + 150 * time) * time)).astype(np.float32)
    heard = {"type": "input_audio", "input_audio": {"data": clip, "sample_rate": 16000}}
    return [
        {
            "role": "user",
            "content": [
                heard,
                {"type": "video_url", "video_url": {"url": str(film)}},
                {"type": "text", "text": "What fits?"},
            ],
        }
    ]


def ask(omni: Omni, messages: list[dict[str, Any]]) -> tuple[int, ...]:
    """Ids of a greedy answer with speech off; film and sound go in together."""
    reply = omni.generate(
        messages,
        greedy=True,
        modalities=("text",),
        min_text_tokens=TOKENS,
        max_text_tokens=TOKENS,
        use_audio_in_video=True,
        video_fps=1.0,
    )
    assert len(reply.codes) == len(reply.audio) == 0
    return reply.token_ids


def watched(omni: Omni, chunk: int = 512, **constants: int) -> tuple[Omni, dict[str, Watched]]:
    """The same bundle behind engines that are watched, read in chunks of `chunk`,
    with other constants of its manifest.
    """
    engines = {name: Watched(engine) for name, engine in omni.engines.items()}
    manifest = replace(omni.manifest, constants=replace(omni.manifest.constants, **constants))
    return Omni(
        manifest, engines, omni.front_end, prefill_chunk=chunk, voice_table=omni.model.voice_table
    ), engines


def hf_positions(omni: Omni, prompt: Prompt) -> np.ndarray:
    """float32 [3, tokens] of HF's get_rope_index, to which audio is text."""
    front_end = omni.front_end
    this = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    this.get_vision_position_ids = lambda *arguments, **options: Qwen3_5MoeModel.get_vision_position_ids(
        this, *arguments, **options
    )
    ids = torch.from_numpy(prompt.token_ids)[None]
    kinds = torch.where(ids == front_end.image, 1, torch.where(ids == front_end.video, 2, 0))
    grids = torch.tensor([item.grid for item in prompt.media if item.kind == "video"])
    positions: np.ndarray = (
        Qwen3_5MoeModel.get_rope_index(this, ids, kinds, None, grids)[0][:, 0].numpy().astype(np.float32)
    )
    return positions


def test_audio_and_video_to_text_equal_the_reference_in_any_chunks(
    omni: Omni, reference: SlowLoop, messages: list[dict[str, Any]]
) -> None:
    one_by_one, engines = watched(omni, chunk=1)
    answer = ask(one_by_one, messages)
    prompt = omni.front_end.prompt(messages, use_audio_in_video=True, video_fps=1.0)
    assert (
        [item.kind for item in prompt.media] == ["audio", "video"]
        and prompt.media[1].audio_tokens > 0
        and prompt.media[1].grid[0] == 2
    )
    assert (
        engines["audio_encoder"].runs > 0
        and engines["vision_encoder"].runs > 0
        and engines["talker"].runs == 0
    )

    positions = hf_positions(omni, prompt)
    np.testing.assert_array_equal(prompt.positions, positions)
    steps = positions.max() + 1 + np.arange(TOKENS - 1, dtype=np.float32)
    features: dict[int, np.ndarray] = {}
    for call in prompt.calls:
        features |= dict(
            zip(
                np.asarray(call.rows).tolist(),
                omni.engines[call.stage].run(call.feeds())["features"],
                strict=True,
            )
        )
    token_ids = np.concatenate([prompt.token_ids, answer[:-1]])
    expected, _ = reference.read(
        token_ids, np.concatenate([positions, np.broadcast_to(steps, (3, len(steps)))], axis=1), features
    )
    found = np.stack(engines["thinker"].logits)  # a row for every token: the chunks hold one
    assert found.shape == expected.shape
    assert (np.abs(found - expected).max(axis=1) / np.abs(expected).max(axis=1)).max() < TOLERANCE

    choices = expected[len(prompt.token_ids) - 1 :].copy()
    choices[:, omni.front_end.im_end] = -np.inf  # the answer was made to last
    assert min(margin(scores) for scores in choices) > DECISIVE, (
        "a choice of the reference is a near-tie; ask something else"
    )
    assert list(answer) == choices.argmax(axis=1).tolist()
    for chunk in (7, 64, 100, 1000):
        assert ask(watched(omni, chunk)[0], messages) == answer


def test_a_long_prefill_holds_what_the_formula_of_its_states_says(omni: Omni) -> None:
    context, states = omni.model.thinker.new_context(), omni.engines["thinker"].entry.states
    axes = [
        [
            {"batch": 1, "capacity": 1}.get(axis, axis) if isinstance(axis, str) else axis
            for axis in state.shape
        ]
        for state in states
    ]
    sizes = [
        int(np.prod(shape)) * np.dtype(state.dtype).itemsize
        for shape, state in zip(axes, states, strict=True)
    ]
    per_row = sum(size for size, state in zip(sizes, states, strict=True) if state.kind == "kv")
    fixed = sum(2 * size for size, state in zip(sizes, states, strict=True) if state.kind != "kv")
    assert per_row > 0 and fixed > 0
    seen = []

    def look() -> None:
        held = context.states
        assert held.bytes == fixed + per_row * held.capacity
        assert held.capacity <= held.length * 9 // 8 + BLOCK
        seen.append(held.length)

    context.queue_text(np.random.default_rng(0).integers(0, 500, 5000))
    omni.model.thinker.prefill(context, look)
    look()
    assert seen == [*range(0, 5000, 512), 5000]


def test_a_prompt_beyond_the_context_is_refused_before_any_run(
    omni: Omni, messages: list[dict[str, Any]]
) -> None:
    small, engines = watched(omni, thinker_context=64)
    conversation = small.conversation()
    asked = {"use_audio_in_video": True, "video_fps": 1.0}
    for attempt in (
        lambda: small.stream(messages, **asked),
        lambda: small.generate([{"role": "user", "content": "word " * 200}]),
        lambda: conversation.append(messages, **asked),
    ):
        with pytest.raises(AntiphonError) as refusal:
            attempt()
        assert "64" in str(refusal.value) and "shorten" in str(refusal.value)
        assert (
            str(refusal.value).endswith(".")
            and ". " not in str(refusal.value)
            and "\n" not in str(refusal.value)
        )
    assert all(engine.runs == 0 for engine in engines.values())
    conversation.append(text="Hi")
    with conversation.reply(greedy=True, modalities=("text",), max_text_tokens=3) as reply:
        assert any(event for event in reply)
    assert engines["thinker"].runs > 0 and engines["vision_encoder"].runs == 0
