"""The trained checkpoint in the repository:
what lies there, and that the bundle built from it answers and speaks.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import antiphon
from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.runtime.omni import Omni

FOLDER = Path(__file__).resolve().parents[1] / "graphs" / "pretrained" / "tiny"
PROMPTS = json.loads((FOLDER.parents[2] / "scripts" / "quality" / "prompts.json").read_text(encoding="utf-8"))
SUMS = [prompt for prompt in PROMPTS if prompt["kind"] == "sum"][:10]


@pytest.fixture(scope="module")
def omni(pretrained_bundle: Path) -> Iterator[Omni]:
    """The bundle of the trained checkpoint, loaded."""
    with antiphon.load(pretrained_bundle) as loaded:
        yield loaded


def typed(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_the_checkpoint_fits_the_repository_and_is_of_the_second_family() -> None:
    assert (
        sum(file.stat().st_size for file in FOLDER.iterdir() if file.suffix == ".safetensors") <= 25_000_000
    )
    checkpoint = Checkpoint(FOLDER)
    assert checkpoint.config.family == "qwen3_5_omni"
    assert checkpoint.config.talker is not None and checkpoint.config.talker.num_code_groups == 16
    assert (FOLDER / "README.md").is_file()  # the model card


def test_every_weight_is_finite() -> None:
    checkpoint = Checkpoint(FOLDER)
    assert [name for name in checkpoint.names() if not np.isfinite(checkpoint.read(name)).all()] == []


def test_text_goes_in_as_fast_as_the_voices_speak_it(omni: Omni) -> None:
    """R and the median, measured on the voices (scripts/train_tiny/paces.py):
    a token of text takes about three and a half frames.
    """
    assert omni.manifest.interleave == "adaptive"
    assert 2 < omni.manifest.constants.frames_per_text < (omni.manifest.constants.frames_per_token or 0) < 4.5


def test_sums_that_were_never_trained_on_are_right(omni: Omni) -> None:
    replies = [
        omni.generate(typed(prompt["typed"]), greedy=True, modalities=("text",), max_text_tokens=40).text
        for prompt in SUMS
    ]
    assert sum(reply == prompt["answer"] for reply, prompt in zip(replies, SUMS, strict=True)) >= 8, replies


def test_an_answer_is_spoken_for_as_long_as_a_speaker_takes(omni: Omni) -> None:
    reply = omni.generate(typed("What is twenty three plus forty five?"), seed=0)
    assert reply.text == "Twenty three plus forty five is sixty eight."
    assert reply.finish_reason == "stop"
    assert 1.2 < len(reply.audio) / reply.sample_rate < 5.0
    assert 0.02 < float(np.sqrt(np.mean(np.square(reply.audio)))) < 0.3


def test_speech_has_the_spectrum_of_a_voice(omni: Omni) -> None:
    """More than nine tenths of the power below 4 kHz, hardly any below 60 Hz:
    noise of random weights has neither.
    """
    audio = omni.generate(typed("Say 347."), seed=1).audio
    power = np.abs(np.fft.rfft(audio)) ** 2
    frequency = np.fft.rfftfreq(len(audio), 1 / omni.sample_rate)
    assert power[frequency < 4000].sum() > 0.9 * power.sum()
    assert power[frequency < 60].sum() < 0.1 * power.sum()


@pytest.mark.parametrize("seed", range(3))
def test_sampled_answers_end_and_are_heard(omni: Omni, seed: int) -> None:
    choice = random.Random(seed)
    for prompt in choice.sample(PROMPTS, 3):
        reply = omni.generate(typed(prompt["typed"]), seed=seed, max_text_tokens=128)
        assert reply.finish_reason == "stop", prompt
        assert np.abs(reply.audio).max() > 0.05, prompt
