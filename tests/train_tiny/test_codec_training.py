"""Training of the codec: a few steps on noise with texts give codes,
curves and a state that the checkpoint can hold.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("librosa", reason="the losses of the codec need librosa's mel filters")
pytest.importorskip("soundfile")

import torch
from tokenizers import Tokenizer

from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.scripts.train_tiny.codec_training import FRAME, train, trainable_encoder
from antiphon.scripts.train_tiny.corpus import Corpus, Item
from antiphon.scripts.train_tiny.differentiable import differentiable
from antiphon.scripts.train_tiny.run import trained

STEPS = 3
TEXTS = ("Say five.", "Twelve plus one is thirteen.", "Hello.", "It is seven oh five.")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """A few seconds of noise with texts."""
    noise = np.random.default_rng(0)
    clips = [
        noise.normal(0, 0.1, FRAME * (6 + 4 * number) + 100 * number).astype(np.float32)
        for number in range(len(TEXTS))
    ]
    starts = np.cumsum([0, *map(len, clips)])
    items = [
        Item("answer", "joe", "number", text, 0, int(starts[number]), len(clips[number]))
        for number, text in enumerate(TEXTS)
    ]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "items.jsonl").write_text(
        "\n".join(json.dumps(dataclasses.asdict(item)) for item in items) + "\n", encoding="utf-8"
    )
    np.round(np.concatenate(clips) * 32767).clip(-32767, 32767).astype(np.int16).tofile(
        tmp_path / "corpus" / "audio.i16"
    )
    return Corpus(tmp_path / "corpus")


def test_a_few_steps_train_encoder_quantiser_and_judges(
    corpus: Corpus, start_checkpoint: Path, tmp_path: Path
) -> None:
    config = read_config(start_checkpoint).codec_encoder
    assert config is not None
    tokenizer = Tokenizer.from_file(str(start_checkpoint / "tokenizer.json"))
    run = train(corpus, tmp_path / "run", config, tokenizer, STEPS, None)
    assert run.step == STEPS and run.progress == 1.0
    encoder = trainable_encoder(config)
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    trained(tmp_path / "run", {"encoder": encoder})
    assert all(torch.isfinite(parameter).all() for parameter in encoder.parameters())
    assert all(not torch.equal(parameter, before[name]) for name, parameter in encoder.named_parameters())
    clip = torch.from_numpy(corpus.audio(3))[None, : 10 * FRAME]
    encoder.eval()
    with torch.no_grad():
        expected = encoder(clip, torch.tensor([10 * FRAME]))[0]
        with differentiable():
            codes = encoder(clip, torch.tensor([10 * FRAME]))[0]
    assert codes.shape == (1, 10, config.num_quantizers) and int(codes.max()) < config.codebook_size
    assert torch.equal(codes, expected)
