"""Code2Wav's training: its fast forward pass is the stage's, its crops count what they should,
its codes are those of their corpus.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip(
    "librosa",
    reason="librosa is missing: the losses of the tiny model's training need it (antiphon[quality])",
)

from antiphon.graphs.config import Code2WavConfig, RopeConfig
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.train_tiny import vocoder_forward, vocoder_training
from antiphon.scripts.train_tiny.codec_training import FRAME
from antiphon.scripts.train_tiny.codes import load_codes, save_codes
from antiphon.scripts.train_tiny.corpus import Corpus, Item
from antiphon.scripts.train_tiny.spectral_losses import SpectralLosses
from antiphon.scripts.train_tiny.vocoder_training import (
    CONTEXT,
    CROP,
    TrainedVocoder,
    crops,
    resynthesise,
    rounded,
    train,
)

CONFIG = Code2WavConfig(
    codebook_size=8,
    num_quantizers=4,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    sliding_window=6,
    rms_norm_eps=1e-5,
    rope=RopeConfig(1e4),
    upsample_rates=(8, 5, 4, 3),
    upsampling_ratios=(2, 2),
    decoder_dim=32,
    attention_bias=False,
    codebook_dim=4,
    quantizer_dim=8,
    latent_dim=16,
    pre_conv_kernel=3,
    num_semantic_quantizers=1,
    head_dim=8,
    symmetric_trim=False,
    sample_rate=24_000,
)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops of SnakeBeta as they are: to compile them takes longer than all these tests."""
    monkeypatch.setattr(
        vocoder_forward, "_loops", lambda: (vocoder_forward._snake_forward, vocoder_forward._snake_backward)
    )
    torch.manual_seed(0)


@pytest.fixture
def vocoder() -> TrainedVocoder:
    vocoder = TrainedVocoder(CONFIG)
    vocoder.entries.normal_()
    return vocoder


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Tones of different lengths, one shorter than a crop."""
    noise, total, items, audio = np.random.default_rng(0), 0, [], []
    for number, samples in enumerate((FRAME * 5 + 7, FRAME * 30, FRAME * 25 - 1)):
        audio.append((8000 * np.sin(np.arange(samples) * noise.uniform(0.02, 0.2))).astype(np.int16))
        items.append(Item("answer" if number else "prompt", f"voice{number}", "tone", "", 0, total, samples))
        total += samples
    (tmp_path / "audio.i16").write_bytes(np.concatenate(audio).tobytes())
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(asdict(item)) for item in items))
    return Corpus(tmp_path)


@pytest.fixture
def codes(corpus: Corpus) -> list[np.ndarray]:
    return [
        np.random.default_rng(1).integers(0, 8, (-(-item.samples // FRAME), 4)).astype(np.uint8)
        for item in corpus.items
    ]


def test_forward_of_training_equals_the_stage_module(vocoder: TrainedVocoder) -> None:
    codes = np.random.default_rng(0).integers(0, 8, (CROP, 4))
    made = vocoder(torch.from_numpy(codes)[None], torch.zeros(1, dtype=torch.long), torch.float32)[0]
    torch.testing.assert_close(
        made.clamp(-1, 1).detach(), torch.from_numpy(resynthesise(vocoder, codes)), atol=2e-4, rtol=1e-3
    )


def test_gradients_of_training_equal_those_of_the_stage_module(vocoder: TrainedVocoder) -> None:
    module, frames = vocoder.module, 3
    embedded = torch.randn(2, frames, CONFIG.quantizer_dim)
    wanted = torch.randn(2, frames * FRAME)
    module.code_embedding.requires_grad_(True)
    (
        (
            vocoder_forward.waveform(module, vocoder_forward.hidden_frames(module, embedded), torch.float32)
            * wanted
        ).sum()
    ).backward()
    fast = {name: parameter.grad for name, parameter in module.named_parameters()}
    module.zero_grad()
    # The module takes codes: one table row a frame, and what the other codebooks add is zero.
    module.config = CONFIG
    table = torch.zeros(CONFIG.num_quantizers * CONFIG.codebook_size, CONFIG.quantizer_dim)
    table[: 2 * frames] = embedded.flatten(0, 1)
    module.code_embedding = torch.nn.Parameter(table)
    codes = torch.full((2, frames, CONFIG.num_quantizers), CONFIG.codebook_size - 1)
    codes[:, :, 0] = torch.arange(2 * frames).view(2, frames)
    past = [torch.zeros(2, *(int(size) for size in spec.shape[1:])) for spec in module.states()]
    output_audio = module(codes, torch.zeros(2, dtype=torch.long), *past)[0]
    assert output_audio.abs().max() < 1  # nothing is clamped
    (output_audio * wanted).sum().backward()
    for name, parameter in module.named_parameters():
        if name != "code_embedding":
            assert fast[name] is not None and parameter.grad is not None
            scale = parameter.grad.abs().max().item()
            torch.testing.assert_close(
                fast[name],
                parameter.grad,
                atol=2e-3 * scale,
                rtol=1e-2,
                msg=lambda text, name=name: f"{name}: {text}",
            )


def test_crops_count_no_context_but_at_the_start_and_nothing_behind_the_end(
    corpus: Corpus, codes: list[np.ndarray]
) -> None:
    stream = crops(corpus, codes, np.random.default_rng(0))
    for _ in range(5):
        stacked, first, wanted, counted = next(stream)
        assert stacked.shape[1] >= CROP and (first + CROP <= stacked.shape[1]).all()
        for start, audio, counts in zip(first.tolist(), wanted, counted, strict=True):
            assert bool(counts[0]) == (start == 0)
            assert counts[CONTEXT * FRAME] == 1
            assert (
                audio[counts.cumsum(0) == counts.sum()][1:] * counts[counts.cumsum(0) == counts.sum()][1:]
            ).sum() == 0


def test_losses_ignore_phase_and_hear_noise() -> None:
    losses, wanted = SpectralLosses(), torch.randn(2, 9600) * 0.1
    assert all(part.item() < 1e-4 for part in losses(-wanted, wanted).values())
    assert all(part.item() > 0.1 for part in losses(torch.randn(2, 9600), wanted).values())


def test_training_lowers_the_loss_and_goes_on_where_it_stopped(
    vocoder: TrainedVocoder, corpus: Corpus, codes: list[np.ndarray], tmp_path: Path
) -> None:
    before = vocoder_training.evaluate(vocoder, corpus, codes, 1)["loss"]
    train(corpus, codes, tmp_path / "run", vocoder, 6, None, rate=0.05)
    assert vocoder_training.evaluate(vocoder, corpus, codes, 1)["loss"] < before
    again = TrainedVocoder(CONFIG)
    run = train(corpus, codes, tmp_path / "run", again, 6, None)
    assert run.step == 6
    assert all(
        torch.equal(left, right)
        for left, right in zip(again.state_dict().values(), vocoder.state_dict().values(), strict=True)
    )


def test_rounded_weights_are_those_of_a_bfloat16_checkpoint(vocoder: TrainedVocoder) -> None:
    for name, parameter in rounded(vocoder).named_parameters():
        stored = parameter.log() if name.endswith((".frequency", ".magnitude")) else parameter
        torch.testing.assert_close(stored, stored.bfloat16().float(), atol=1e-6, rtol=1e-6)


def test_codes_of_another_corpus_are_refused(corpus: Corpus, codes: list[np.ndarray], tmp_path: Path) -> None:
    save_codes(tmp_path / "codes.npz", codes)
    assert all(
        np.array_equal(left, right)
        for left, right in zip(load_codes(tmp_path / "codes.npz", corpus), codes, strict=True)
    )
    save_codes(tmp_path / "codes.npz", codes[:2])
    with pytest.raises(AntiphonError, match="not those of this corpus"):
        load_codes(tmp_path / "codes.npz", corpus)
    with pytest.raises(AntiphonError, match="holds no codes"):
        load_codes(tmp_path / "missing.npz", corpus)
