"""The quality table, on a random bundle; synthesisers and recognisers are stood in for,
so that nothing optional is needed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from antiphon.scripts import evaluate
from antiphon.scripts.quality import listening, parts, sound
from antiphon.scripts.quality.recognisers import Word
from antiphon.scripts.quality.synthesisers import Alignment
from antiphon.scripts.quality.values import OWN, TYPED, Found


class Deaf:
    """A recogniser that hears the same in everything."""

    name = procedure = "Whisper tiny"

    def __init__(self, *_: object) -> None:
        pass

    def hear(self, audio: np.ndarray, rate: int) -> str:
        return "two plus two is 4"

    def words(self, audio: np.ndarray, rate: int) -> list[Word]:
        return []


def hum(text: str, voice: str, seed: int = 0) -> np.ndarray:
    """Sound of a length that goes with `text`."""
    return (0.1 * np.sin(np.arange(1200 * len(text)) * (0.05 if voice == "joe" else 0.09))).astype(np.float32)


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "synthesise", hum)
    monkeypatch.setattr(
        parts,
        "align",
        lambda text: Alignment(
            len(text) / 20, (tuple((word, place * 0.3) for place, word in enumerate(text.split())),)
        ),
    )
    monkeypatch.setattr(listening, "Whisper", Deaf)
    monkeypatch.setattr(
        listening, "Sphinx", type("Sphinx", (Deaf,), {"name": "pocketsphinx", "procedure": "pocketsphinx"})
    )
    monkeypatch.setattr(sound, "mos", lambda audio, rate: {"overall": 1.0, "signal": 2.0, "background": 3.0})
    for name, value in {"TEXT_LIMIT": 4, "FRAME_LIMIT": 6, "FRAMES_BEYOND": 0, "VOICE_TEXTS": 1}.items():
        monkeypatch.setattr(parts, name, value)


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    prompts = [
        {
            "kind": "sum",
            "typed": "What is 2 plus 2?",
            "spoken": "What is two plus two?",
            "answer": "Two plus two is four.",
        },
        {
            "kind": "talk",
            "typed": "Hello.",
            "spoken": "Hello.",
            "answer": "Hello! How can I help you? I am here and I can speak.",
        },
    ]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    return tmp_path / "prompts.json"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
    evaluate.main()


def test_every_part_is_measured_of_a_bundle_that_can_do_everything(
    hybrid_bundle: Path,
    prompt_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, hybrid_bundle, "--prompts", 2, "--prompt-file", prompt_file, "--json")
    printed = json.loads(capsys.readouterr().out)
    assert printed["not_measured"] == {str(hybrid_bundle): {}}
    cells = {
        (value["measure"], value["column"]): value["value"]
        for value in printed["values"][0]
        if not value["kind"]
    }
    for column in ("synthesiser", "resynthesis", "given text", "own text"):
        assert cells["DNSMOS, signal", column] == 2.0
        assert cells["words a second, median", column] is not None
    assert (
        cells["word error rate, Whisper tiny", "given text"]
        == cells["word error rate, Whisper tiny", "synthesiser"]
        > 0
    )
    assert cells["runs without an end", "own text"] == 2
    gates = {gate["name"]: gate["met"] for gate in printed["gates"][0]}
    assert None not in gates.values()
    assert gates["(b) given text: word error rate above the synthesiser's"] is True
    assert gates["(c) right answers, typed"] is False


def test_a_bundle_without_a_codec_encoder_is_measured_in_the_rest(
    tiny_bundle: Path, prompt_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        monkeypatch,
        tiny_bundle,
        "--prompts",
        1,
        "--prompt-file",
        prompt_file,
        "--only",
        "codec,speech,cursor",
    )
    printed = capsys.readouterr().out
    assert f"{tiny_bundle} has no stage codec_encoder: codec was not measured." in printed
    assert "given text" in printed and "cursor error, median" in printed and "resynthesis: " not in printed


def test_text_alone_needs_no_optional_package_and_two_bundles_are_compared(
    hybrid_bundle: Path,
    prompt_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(parts, "synthesise", None)
    monkeypatch.setattr(listening, "Whisper", None)
    run(
        monkeypatch,
        hybrid_bundle,
        "--only",
        "text",
        "--prompts",
        2,
        "--prompt-file",
        prompt_file,
        "--against",
        hybrid_bundle,
    )
    printed = capsys.readouterr().out
    assert "(c) right answers, typed" in printed and "missed" in printed
    assert "+0.0 points" in printed


def test_the_difference_is_what_the_second_bundle_has_more(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Found(), Found()
    for found, value in ((first, 0.9), (second, 0.875)):
        found.add(TYPED, OWN, value, "%")
        found.add("pause, median", OWN, value, "s")
    evaluate._print_difference([Path("fp32/bundle"), Path("int8/bundle")], [first, second])
    printed = capsys.readouterr().out
    assert "-2.5 points" in printed and "-0.03 s" in printed
    assert "fp32/bundle" in printed and "int8/bundle" in printed  # their names alone are the same


def test_a_second_run_takes_what_the_first_one_kept(
    hybrid_bundle: Path,
    prompt_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (
        hybrid_bundle,
        "--only",
        "floor,hearing",
        "--prompts",
        2,
        "--prompt-file",
        prompt_file,
        "--work",
        tmp_path / "work",
        "--json",
    )
    run(monkeypatch, *arguments)
    first = capsys.readouterr().out
    monkeypatch.setattr(parts, "synthesise", None)
    monkeypatch.setattr(Deaf, "hear", None)
    run(monkeypatch, *arguments)
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--only", "text,smell"),
            "--only names 'smell', expected some of floor, codec, speech, text, hearing, "
            "sampled, voice, cursor",
        ),
        (("--prompts", 0), "--prompts is 0, expected 1 to 240"),
        (("--sampled", 0), "--sampled is 0, expected at least 1"),
        (("--threads", 0), "--threads is 0, expected at least 1"),
        (("--prompt-file", "nowhere.json"), "nowhere.json is no list of objects"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: tuple[object, ...],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, tmp_path, *arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_that_is_no_bundle_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path / "nowhere", "--only", "text", "--prompts", 1)
    assert capsys.readouterr().err.count("\n") == 1
