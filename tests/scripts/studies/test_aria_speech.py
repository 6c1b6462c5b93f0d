"""The study of interleaves on speech: what is said under every policy, and what is measured of it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.omni import Omni, load
from antiphon.scripts.quality.prompts import Prompt
from antiphon.scripts.studies.aria_plot import plot_speech
from antiphon.scripts.studies.aria_simulation import study
from antiphon.scripts.studies.aria_speech import (
    FIXED_RATIO,
    RATE,
    SYNTHESISER,
    Study,
    Subject,
    Text,
    policies,
)


class Recogniser:
    """Hears `words` in every sound."""

    def __init__(self, words: str) -> None:
        self.words, self.name = words, words


class Listener:
    """In place of quality.listening.Listener: two recognisers, of which the first hears the right words."""

    recognisers = (Recogniser("four plus one is five"), Recogniser("four plus one is nine"))

    def heard(self, recogniser: Recogniser, audio: np.ndarray, rate: int) -> str:
        return recogniser.words if len(audio) else ""


def text(tokens: int, frames: int) -> Text:
    """A text whose synthesiser hums for as long as it speaks, with a pause in the middle."""
    samples = frames * 1920
    hum = np.sin(np.arange(samples) * 0.1).astype(np.float32) * 0.3
    hum[samples // 2 : samples // 2 + RATE // 5] = 0
    return Text(
        Prompt("sum", "What is 4 plus 1?", "What is four plus one?", "Four plus one is five."),
        tokens,
        hum,
        frames,
    )


@pytest.fixture(scope="module")
def omni(hybrid_bundle: Path) -> Iterator[Omni]:
    with load(hybrid_bundle) as loaded:
        yield loaded


@pytest.fixture
def asked(omni: Omni) -> list[Text]:
    tokens = len(omni.front_end.encode_text("Four plus one is five."))
    return [text(tokens, FIXED_RATIO * tokens), text(tokens, FIXED_RATIO * tokens - 2)]


def heard(asked: list[Text]) -> Study:
    return Study(asked, Listener(), lambda what, done, total: None)  # type: ignore[arg-type]


def test_the_synthesiser_is_as_long_as_itself_and_its_pauses_are_timed(asked: list[Text]) -> None:
    found = heard(asked).synthesiser()
    assert (found.policy, found.length, found.rate_spread, found.over_bound, found.endless) == (
        SYNTHESISER,
        1.0,
        0.0,
        0.0,
        0,
    )
    assert found.pause == pytest.approx(0.2, abs=0.03) and 0 < found.paused < 0.5
    assert (found.word_errors, found.second_errors, found.slow_errors, found.fast_errors) == (
        0.0,
        pytest.approx(0.2),
        0.0,
        0.0,
    )
    assert [item.frames for item in found.items] == [one.frames for one in asked]


def test_every_policy_says_every_text_and_the_schedule_decides_what_the_simulation_gets(
    omni: Omni, hybrid_bundle: Path, asked: list[Text]
) -> None:
    tested = heard(asked)
    said = dict(
        (voiced.policy, (policy, voiced))
        for policy, voiced in tested.interleaved(Subject(omni, hybrid_bundle))
    )
    assert list(said) == list(policies(1.0)) and {
        f"fixed 1:{FIXED_RATIO}",
        "chunked 4:4",
        "adaptive R=1, lead 8",
    } <= set(said)
    for policy, voiced in said.values():
        assert all(
            item.tokens == one.tokens and 0 < item.frames <= 3 * one.frames + 25
            for item, one in zip(voiced.items, asked, strict=True)
        ), policy
        assert voiced.frame_seconds is not None and voiced.frame_seconds > 0
    outcomes = study(
        {name: voiced.items for name, (_, voiced) in said.items()},
        {name: policy for name, (policy, _) in said.items()},
        0.02,
    )
    first = {(row.trace, row.policy): row.first_audio for row in outcomes}
    assert first["8 tok/s", "adaptive R=1, lead 1"] < first["8 tok/s", "adaptive R=1, lead 4"]
    picture = plot_speech([tested.synthesiser(), *(voiced for _, voiced in said.values())], outcomes)
    assert xml.fromstring(picture).tag.endswith("svg")


def test_a_talker_is_asked_only_for_what_it_was_trained_for(
    omni: Omni, hybrid_bundle: Path, asked: list[Text]
) -> None:
    with pytest.raises(
        AntiphonError, match="was trained for chunked:4,4; give a bundle of a dual-track Talker"
    ):
        heard(asked).dual_track(Subject(omni, hybrid_bundle))
    assert omni.manifest.talker is not None
    summed = dataclasses.replace(omni.manifest.talker, layout="summed")
    manifest = dataclasses.replace(omni.manifest, interleave="dual_track", talker=summed)
    other = Omni(manifest, omni.engines, omni.front_end, voice_table=omni.model.voice_table)
    with pytest.raises(AntiphonError, match="cannot interleave text and speech"):
        next(heard(asked).interleaved(Subject(other, hybrid_bundle)))
    policy, voiced = heard(asked).dual_track(Subject(other, hybrid_bundle))
    assert policy.name == "dual_track" and all(item.frames > 0 for item in voiced.items)


def test_only_the_chosen_policies_speak(omni: Omni, hybrid_bundle: Path, asked: list[Text]) -> None:
    said = [
        voiced.policy
        for _, voiced in heard(asked[:1]).interleaved(
            Subject(omni, hybrid_bundle), chosen=["chunked:2,2", "adaptive:5/2,3"]
        )
    ]
    assert said == ["chunked:2,2", "adaptive:2.5,3"]
    with pytest.raises(AntiphonError, match="expected dual_track, chunked:TEXT_ROWS,FRAMES"):
        next(heard(asked).interleaved(Subject(omni, hybrid_bundle), chosen=["chunked:2,2", "often"]))


@pytest.mark.parametrize("option", ["--dual-track", "--wavs", "--work", "--interleave"])
def test_options_of_speech_need_a_bundle(option: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "antiphon.scripts.studies.aria_study", option, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "--bundle" in done.stderr


def test_a_bundle_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "antiphon.scripts.studies.aria_study", "--bundle", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("aria_study: ") and "Traceback" not in done.stderr
