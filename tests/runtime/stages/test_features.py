"""Encoder outputs are made when the Thinker gets there, and forgotten when it has passed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.frontend.prompt.front_end import EncoderCall
from antiphon.runtime.stages.features import Features

HIDDEN = 2


def outputs(call: EncoderCall, deepstack: int = 0) -> dict[str, np.ndarray]:
    """A feature tells its token."""
    rows = np.asarray(call.rows, np.float32)
    features = np.stack([rows, -rows], axis=1)
    return {"features": features} | (
        {"deepstack": np.stack([features * 10] * deepstack)} if deepstack else {}
    )


def call(rows: list[int]) -> EncoderCall:
    return EncoderCall("audio_encoder", dict, np.array(rows))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 7), st.randoms())
def test_every_token_gets_its_feature_whatever_the_chunks_and_however_tracks_mix(sizes, chunk, random):
    rows = list(range(sum(sizes)))
    owners = [number for number, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(owners)  # as audio and video of one film
    calls = [
        (call([row for row, owner in zip(rows, owners, strict=True) if owner == number]), 0)
        for number in range(len(sizes))
    ]
    features = Features(HIDDEN, 0, calls, outputs)
    for start in range(0, len(rows), chunk):
        end = min(start + chunk, len(rows))
        feeds = features.between(start, end)
        assert feeds["feature_index"].tolist() == list(range(end - start))
        assert feeds["features"][:, 0].tolist() == rows[start:end]


def test_an_encoder_runs_when_its_first_token_comes_and_only_once():
    ran = []

    def encode(made: EncoderCall) -> dict[str, np.ndarray]:
        ran.append(int(made.rows[0]))
        return outputs(made)

    features = Features(HIDDEN, 0, [(call([6, 7]), 10), (call([2, 3]), 0)], encode)
    features.between(0, 2)
    assert ran == []
    features.between(2, 10)
    assert ran == [2]
    features.between(10, 17)
    features.between(17, 30)
    assert ran == [2, 6]


def test_features_behind_the_thinker_are_forgotten():
    features = Features(HIDDEN, 1, [(call(list(range(100))), 0)], lambda made: outputs(made, 1))
    features.between(0, 50)
    features.between(90, 95)
    assert len(features._rows) == 10 and features._deep_rows.shape == (1, 10, HIDDEN)


def test_deepstack_rows_follow_the_pictures_alone():
    def encode(made: EncoderCall) -> dict[str, np.ndarray]:
        return outputs(made, 1 if made.stage == "vision_encoder" else 0)

    picture = EncoderCall("vision_encoder", dict, np.array([3, 4]))
    feeds = Features(HIDDEN, 1, [(call([0, 1]), 0), (picture, 0)], encode).between(0, 4)
    assert feeds["feature_index"].tolist() == [0, 1, 3] and feeds["deepstack_index"].tolist() == [3]
    assert feeds["deepstack"][0, :, 0].tolist() == [30.0]


def test_an_encoder_with_too_few_rows_is_noticed():
    with pytest.raises(AssertionError, match="gave 1 rows for 2 tokens"):
        Features(
            HIDDEN, 0, [(call([0, 1]), 0)], lambda _: {"features": np.zeros((1, HIDDEN), np.float32)}
        ).between(0, 2)
