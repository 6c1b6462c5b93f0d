"""What the Talker learns from: the rows that the runtime will feed, in interleaves that ARIA allows,
and losses of what the runtime will ask.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import nn

from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.runtime.stages.aria import Policy, adaptive, bound_violations, chunked, speak
from antiphon.scripts.train_tiny import talker_data, talker_evaluation, talker_training
from antiphon.scripts.train_tiny.differentiable import differentiable
from antiphon.scripts.train_tiny.talker_data import (
    MOST_AHEAD,
    Rows,
    Speech,
    draw_policy,
    dual_track,
    interleaved,
    special_ids,
)
from antiphon.scripts.train_tiny.talker_evaluation import held_out_losses, mean_losses
from antiphon.scripts.train_tiny.talker_training import losses, new_modules, read_frames, residual_losses

END, PAD = 900, 901


class FixedText:
    def __init__(self, tokens: list[int]) -> None:
        self._tokens = iter(tokens)

    def next(self) -> int | None:
        return next(self._tokens, None)


class RecordingTalker:
    """Says `frames` frames and writes down what it was fed, as text ids with -1 for its own frames."""

    def __init__(self, frames: int) -> None:
        self.frames, self.said = frames, 0
        self.rows: list[int] = []
        self.asked: list[tuple[int, bool]] = []

    def step(self, text_ids: list[int], may_end: bool) -> np.ndarray | None:
        self.rows += [-1] * bool(self.said) + text_ids
        self.asked.append((len(self.rows) - 1, may_end))
        if self.said >= self.frames and may_end:
            return None
        self.said += 1
        return np.zeros(16, np.int64)


policies = st.one_of(
    st.builds(chunked, st.integers(1, 5), st.integers(1, 5)),
    st.builds(adaptive, st.integers(1, 12), st.sampled_from([0.3, 1.0, 2.5])),
)


@given(st.integers(1, 12), st.integers(1, 40), policies)
def test_the_interleave_is_what_the_runtime_feeds_where_text_ends_in_time(
    tokens: int, frames: int, policy: Policy
) -> None:
    text = list(range(tokens))
    track = interleaved(text, frames, policy, END)
    talker = RecordingTalker(frames)
    spoken = list(speak(policy, FixedText(text), talker, END, lambda _: 1000))
    # else the runtime says more frames than the utterance has, because its text is not in
    if len(spoken) == frames:
        assert track.text_ids == talker.rows
        assert list(zip(track.asked, track.may_end, strict=True)) == talker.asked
    assert [row for row in track.text_ids if row != -1] == [*text, END]
    assert track.frame_rows == [row for row, text_id in enumerate(track.text_ids) if text_id == -1]
    assert len(track.asked) == frames + 1 and track.may_end[-1]


@given(st.integers(1, 40), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_a_drawn_adaptive_schedule_keeps_the_published_bound_and_a_lead(
    tokens: int, frames: int, seed: int
) -> None:
    policy = draw_policy(np.random.default_rng(seed), tokens, frames)
    assert policy.text_rows_before(1) >= 1
    if policy.name.startswith("adaptive") and frames / tokens > 0.2:
        cursors = [min(tokens, policy.text_rows_before(frame)) for frame in range(1, frames + 1)]
        assert bound_violations(cursors, tokens, frames) == 0


def test_the_dual_track_adds_one_text_row_to_every_frame_and_pads_after_the_end() -> None:
    track = dual_track([5, 6], 4, END, PAD)
    assert track.text_ids == [5, 6, END, PAD, PAD]
    assert track.frame_rows == [1, 2, 3, 4]
    assert track.asked == [0, 1, 2, 3, 4]


@pytest.fixture
def speech(start_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Speech:
    """Six utterances of random codes."""
    noise = np.random.default_rng(0)
    monkeypatch.setattr(talker_data, "BATCH_ROWS", 300)

    class Items:
        items = [
            type("Item", (), {"voice": "joe" if number % 2 else "espeak", "text": "It is seven forty five."})
            for number in range(6)
        ]

    tokenizer = Tokenizer.from_file(str(start_checkpoint / "tokenizer.json"))
    codes = [noise.integers(0, 256, (14 + number, 16)).astype(np.uint8) for number in range(6)]
    return Speech(
        Items(), [codes, codes[::-1]], tokenizer, special_ids(read_config(start_checkpoint), tokenizer)
    )  # type: ignore[arg-type]


def test_residual_losses_are_those_of_the_predictor_step_by_step(start_checkpoint: Path) -> None:
    torch.manual_seed(0)
    talker, predictor = new_modules(read_config(start_checkpoint))
    codes, hidden = torch.randint(0, 256, (3, 16)), torch.randn(3, talker.text.hidden_size)
    with torch.no_grad(), differentiable():
        found = residual_losses(talker, predictor, hidden, codes)
    with torch.no_grad():
        predictor.code_embedding.copy_(torch.cat((talker.codec_embedding[:256], talker.residual_embedding)))
        config = predictor.config
        cache = [
            torch.zeros(3, config.num_key_value_heads, 17, config.head_dim)
            for _ in range(2 * config.num_hidden_layers)
        ]
        length, expected = torch.zeros(3, dtype=torch.int64), []
        for step in range(15):
            first = hidden[:, None] if step == 0 else hidden[:, None][:, :0]
            rows = (
                torch.zeros(3),
                torch.zeros(3),
                torch.zeros(3, dtype=torch.int64),
                torch.ones(3),
                torch.ones(3),
            )
            free = torch.zeros(3, 256, dtype=torch.bool)
            _, logits, _, *cache = predictor(
                first, codes[:, step], torch.tensor([step]), length, *rows, free, free, *cache
            )
            expected.append(torch.nn.functional.cross_entropy(logits, codes[:, step + 1]))
            length = length + (2 if step == 0 else 1)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_every_trained_parameter_gets_a_gradient_and_the_end_is_asked_only_after_the_text(
    start_checkpoint: Path, speech: Speech
) -> None:
    torch.manual_seed(0)
    talker, predictor = new_modules(read_config(start_checkpoint))
    batch = next(speech.batches(np.random.default_rng(0)))
    follower = nn.Linear(talker.text.hidden_size, speech.vocabulary + MOST_AHEAD)
    with differentiable():
        first, residual, followed, values = losses(talker, predictor, follower, batch, torch.Generator())
        (first + residual + followed).backward()
    # codes and, after the text, the end: nothing else is possible
    assert abs(values["first"] - np.log(257)) < 0.7
    for name, parameter in [
        *talker.named_parameters(),
        *predictor.named_parameters(),
        *follower.named_parameters(),
    ]:
        assert (parameter.grad is not None) == parameter.requires_grad, name


def first_fed(rows: Rows) -> int:
    """Text rows of the answer before the first frame is asked for: those right before it."""
    before = rows.text_ids[: rows.asked[0] + 1]
    return int(np.argmax(before[::-1] < 0))


def test_every_row_that_asks_is_told_the_token_it_speaks_and_at_last_the_end(speech: Speech) -> None:
    for rows in next(speech.batches(np.random.default_rng(0))):
        assert len(rows.spoken) == len(rows.asked) and rows.spoken[-1] == speech.ids["tts_eos"]
        text = speech.text[1]
        places = [text.index(token) for token in rows.spoken[:-1]]
        assert places[0] == 0 and sorted(places) == places  # no token of this text comes twice
        fed = [int((rows.text_ids[: row + 1] >= 0).sum()) for row in rows.asked]
        behind = [*places, len(text)]
        expected = [
            min(MOST_AHEAD - 1, max(0, count - fed[0] + first_fed(rows) - place))
            for count, place in zip(fed, behind, strict=True)
        ]
        assert rows.ahead.tolist() == expected


def test_frames_are_read_with_the_later_codes_or_all_of_other_frames(
    speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = next(speech.batches(np.random.default_rng(0)))
    recorded = torch.from_numpy(np.concatenate([rows.frames for rows in batch]))
    monkeypatch.setattr(talker_training, "MOST_CORRUPTED", 0.0)
    monkeypatch.setattr(talker_training, "ROUGH_SHARE", 0.0)
    assert torch.equal(read_frames(batch, torch.Generator()), recorded)
    monkeypatch.setattr(talker_training, "ROUGH_SHARE", 1.0)
    rough = read_frames(batch, torch.Generator().manual_seed(0))
    assert torch.equal(rough[:, :2], recorded[:, :2]) and not torch.equal(rough[:, 15], recorded[:, 15])
    monkeypatch.setattr(talker_training, "ROUGH_SHARE", 0.0)
    monkeypatch.setattr(talker_training, "MOST_CORRUPTED", 1.0)
    share = (read_frames(batch, torch.Generator().manual_seed(0)) != recorded).any(1).float().mean()
    assert 0 < share < 1


def test_held_out_losses_are_those_of_training_with_nothing_replaced(
    start_checkpoint: Path, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    talker, predictor = new_modules(read_config(start_checkpoint))
    rows = next(speech.batches(np.random.default_rng(0)))[0]
    found, frames = held_out_losses(talker, predictor, rows)
    for name, value in {"MOST_CORRUPTED": 0.0, "ROUGH_SHARE": 0.0, "PREDICTED_FRAMES": 4000}.items():
        monkeypatch.setattr(talker_training, name, value)
    follower = nn.Linear(talker.text.hidden_size, speech.vocabulary + MOST_AHEAD)
    with torch.no_grad(), differentiable():
        values = losses(talker, predictor, follower, [rows], torch.Generator().manual_seed(0))[3]
    assert frames == len(rows.targets) and len(found) == 17
    assert found[0] == pytest.approx(values["first"], rel=1e-4)
    assert found[1] == pytest.approx(values["residual"], rel=0.02)  # training draws frames with replacement
    np.testing.assert_allclose(mean_losses([(found, 1), (2 * found, 3)]), found * 1.75)


def test_the_evaluation_prints_the_losses_of_every_kind(
    start_checkpoint: Path,
    speech: Speech,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    talker_training.train(speech, tmp_path / "talker", read_config(start_checkpoint), steps=1, minutes=None)
    np.savez(tmp_path / "voices.npz", joe=np.zeros((12, 16), np.int64))
    monkeypatch.setattr(
        talker_evaluation, "synthesise", lambda text, voice: np.zeros(1920 * len(text), np.float32)
    )
    monkeypatch.setattr(
        talker_evaluation,
        "encode_corpus",
        lambda run, clips, config: [np.zeros((len(clip) // 1920, 16), np.uint8) for clip in clips],
    )
    paths = [
        str(tmp_path / "codec"),
        str(tmp_path / "talker"),
        str(tmp_path / "voices.npz"),
        "--checkpoint",
        str(start_checkpoint),
    ]
    monkeypatch.setattr(sys, "argv", ["talker_evaluation", *paths, "--prompts", "3"])
    talker_evaluation.main()
    printed = capsys.readouterr().out
    assert "nats a code, held out" in printed and "all" in printed


@pytest.mark.parametrize("dual", [False, True])
def test_a_short_training_leaves_a_state_to_go_on_from(
    start_checkpoint: Path, speech: Speech, tmp_path: Path, dual: bool
) -> None:
    speech.dual_track = dual
    run = talker_training.train(
        speech, tmp_path / "talker", read_config(start_checkpoint), steps=3, minutes=None
    )
    assert run.step == 3
    assert (tmp_path / "talker" / "state.pt").is_file()
