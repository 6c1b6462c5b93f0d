"""Codes as a predictor makes them: the recording's first codes, sampled others, and the same again for the same Talker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from antiphon.graphs.read_config import read_config
from antiphon.scripts.train_tiny import talker_training
from antiphon.scripts.train_tiny.differentiable import differentiable
from antiphon.scripts.train_tiny.made_codes import made_codes, sample_residuals
from antiphon.scripts.train_tiny.talker_training import Speech, new_modules, residual_losses, special_ids


@pytest.fixture
def speech(start_checkpoint: Path) -> Speech:
    noise = np.random.default_rng(0)

    class Items:
        items = [type("Item", (), {"voice": "joe" if number % 2 else "apart", "text": "It is seven forty five."}) for number in range(4)]

    tokenizer = Tokenizer.from_file(str(start_checkpoint / "tokenizer.json"))
    codes = [noise.integers(0, 256, (12 + number, 16)).astype(np.uint8) for number in range(4)]
    return Speech(Items(), [codes], tokenizer, special_ids(read_config(start_checkpoint), tokenizer))  # type: ignore[arg-type]


def test_first_codes_are_kept_and_the_others_are_sampled_alike_for_one_seed(start_checkpoint: Path, speech: Speech, tmp_path: Path) -> None:
    config = read_config(start_checkpoint)
    talker_training.train(speech, tmp_path / "talker", config, steps=1, minutes=None)
    made = made_codes(speech, tmp_path / "talker", config, 0.8)
    again = made_codes(speech, tmp_path / "talker", config, 0.8)
    assert sorted(made) == [1, 3]  # items of the model's own voices
    for number, codes in made.items():
        recorded = speech.codes[number][0]
        assert codes.shape == recorded.shape and (codes[:, 0] == recorded[:, 0]).all() and (codes[:, 1:] != recorded[:, 1:]).any()
        assert codes.min() >= 0 and codes.max() < 256
        assert np.array_equal(codes, again[number])


def test_a_cold_sample_is_what_the_training_finds_most_likely(start_checkpoint: Path) -> None:
    torch.manual_seed(0)
    talker, predictor = new_modules(read_config(start_checkpoint))
    hidden, first = torch.randn(5, talker.text.hidden_size), torch.randint(0, 256, (5,))
    with torch.no_grad(), differentiable():
        cold = sample_residuals(talker, predictor, hidden, first, 1e-4, torch.Generator())
        best = residual_losses(talker, predictor, hidden, cold)[0]
        for code in range(0, 256, 17):
            other = cold.clone()
            other[:, 1] = code
            assert best <= residual_losses(talker, predictor, hidden, other)[0] + 1e-5
