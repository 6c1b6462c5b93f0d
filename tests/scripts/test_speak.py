"""antiphon speak: a given text in a WAV file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

TEXT = "Two plus two is four."


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("bundle", ["tiny_bundle", "hybrid_bundle"])
def test_the_text_is_spoken_into_a_wav_file(bundle: str, antiphon, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(bundle)
    code, output, error = antiphon("speak", folder, TEXT, "--max-frames", 6, "--output", "said.wav")
    assert (code, output) == (0, f"{TEXT}\n")
    assert "frame_budget" in error and "said.wav" in error
    info = soundfile.info("said.wav")
    assert info.samplerate == 24000 and info.frames > 0
    assert list(Path().iterdir()) == [Path("said.wav")]


def test_the_text_may_come_from_standard_input_and_the_events_go_out_as_json(
    antiphon, tiny_bundle: Path
) -> None:
    code, output, error = antiphon(
        "speak", tiny_bundle, "-", "--json", "--max-frames", 2, "--voice", "ETHAN", stdin=TEXT
    )
    done = json.loads(output.splitlines()[-1])
    assert (
        (code, error) == (0, "")
        and done["text"] == TEXT
        and done["frames"] == 2
        and done["output"] == "speech.wav"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((" ",), "The text to speak is empty"),
        ((TEXT, "--voice", "nobody"), "There is no voice 'nobody'"),
        ((TEXT, "--output", "said.mp3"), "said.mp3"),
        ((TEXT, "--max-frames", 0), "max_frames is 0"),
    ],
)
def test_bad_input_is_one_sentence_and_no_file(
    antiphon, tiny_bundle: Path, arguments: tuple, sentence: str
) -> None:
    code, output, error = antiphon("speak", tiny_bundle, *arguments)
    assert (code, output) == (2, "") and sentence in error and error.count("\n") == 1
    assert list(Path().iterdir()) == []
