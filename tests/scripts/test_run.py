"""antiphon run: one question, or a conversation."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.events import AudioDelta, Done, TextDelta, Timings
from antiphon.scripts import chat
from antiphon.scripts.answer import JsonPrinter, TextPrinter, closing_line, print_reply

QUESTION = Path(__file__).resolve().parents[2] / "docs" / "examples" / "question.wav"
SHORT = ("--max-text-tokens", 6, "--max-frames", 12)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Scripted:
    """A stream that gives the events it was made with."""

    def __init__(self, *events: object) -> None:
        self.events = iter(events)

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self):
        return self.events


def done(reason: str, text: str = "", frames: int = 0) -> Done:
    return Done(reason, text, tuple(range(len(text))), np.zeros((frames, 16), np.int64), Timings())


def test_the_text_is_printed_and_the_speech_is_written(antiphon, tiny_bundle: Path) -> None:
    code, output, error = antiphon(
        "run", tiny_bundle, "Tell me something.", "--audio", QUESTION, *SHORT, "--output", "spoken.wav"
    )
    assert code == 0
    assert len(output.strip()) > 0
    assert "spoken.wav" in error and "TTFA" in error and "RTF" in error and error.count("\n") == 1
    info = soundfile.info("spoken.wav")
    assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16") and info.frames > 0
    assert list(Path().iterdir()) == [Path("spoken.wav")]


def test_json_lines_add_up_to_their_closing_line(antiphon, tiny_bundle: Path) -> None:
    code, output, error = antiphon("run", tiny_bundle, "Tell me something.", "--json", *SHORT)
    events = [json.loads(line) for line in output.splitlines()]
    texts, packets, closing = (
        [event for event in events if event["event"] == kind] for kind in ("text", "audio", "done")
    )
    assert (code, error) == (0, "") and events[-1:] == closing
    assert "".join(event["text"] for event in texts) == closing[0]["text"]
    assert sum(event["frames"] for event in packets) == closing[0]["frames"]
    assert sum(event["samples"] for event in packets) == soundfile.info("answer.wav").frames
    assert closing[0]["output"] == "answer.wav" and closing[0]["timings"]["time_to_first_audio"] > 0
    assert [event["seconds"] for event in events] == sorted(event["seconds"] for event in events)


def test_text_only_writes_no_file(antiphon, tiny_bundle: Path) -> None:
    code, output, _ = antiphon("run", tiny_bundle, "Tell me something.", "--text-only", *SHORT)
    assert code == 0 and output.strip() and list(Path().iterdir()) == []


def test_the_question_may_come_from_standard_input(antiphon, tiny_bundle: Path) -> None:
    options = ("--text-only", "--greedy", *SHORT)
    typed = antiphon("run", tiny_bundle, "Tell me something.", *options)[1]
    assert antiphon("run", tiny_bundle, "-", *options, stdin="Tell me something.\n")[1] == typed


def test_the_system_prompt_and_the_voice_reach_the_model(antiphon, tiny_bundle: Path) -> None:
    plain = antiphon("run", tiny_bundle, "Tell me something.", "--greedy", *SHORT)[1]
    assert (
        antiphon(
            "run",
            tiny_bundle,
            "Tell me something.",
            "--greedy",
            *SHORT,
            "--system",
            "Speak like a pirate, and at length.",
        )[1]
        != plain
    )
    default = soundfile.read("answer.wav")[0]
    antiphon(
        "run",
        tiny_bundle,
        "Tell me something.",
        "--greedy",
        *SHORT,
        "--voice",
        "aiden",
        "--output",
        "aiden.wav",
    )
    assert not np.array_equal(default, soundfile.read("aiden.wav")[0])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "nothing to ask"),
        (("-",), "nothing to ask"),
        (("hi", "--output", "a.mp3"), "not a .wav"),
        (("hi", "--output", "a.wav", "--text-only"), "contradict"),
        (("hi", "--voice", "nobody"), "nobody"),
        (("hi", "--voice", "nobody", "--text-only"), "nobody"),
        (("\udcff bad",), "messages[0].content is not valid Unicode: character 0"),
        (("hi", "--system", "be \udcff"), "messages[0].content is not valid Unicode: character 3"),
        (("hi", "--max-frames", "0"), "max_frames"),
        (("hi", "--image", "nowhere.png"), "nowhere.png"),
        (("hi", "--seed", "-1"), "seed"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_file(
    antiphon, tiny_bundle: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    code, output, error = antiphon("run", tiny_bundle, *arguments)
    assert (code, output) == (2, "")
    assert complaint in error and error.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_a_folder_that_is_no_bundle_is_named(antiphon, tmp_path: Path) -> None:
    code, _, error = antiphon("run", tmp_path, "hi")
    assert code == 2 and str(tmp_path) in error and "manifest.json" in error


def test_an_answer_without_a_word_is_an_error_and_no_empty_file() -> None:
    with pytest.raises(AntiphonError, match="without a word"):
        print_reply(Scripted(done("empty")), 24000, Path("answer.wav"), JsonPrinter())
    assert list(Path().iterdir()) == []


def test_an_answer_without_the_speech_asked_for_is_an_error() -> None:
    with pytest.raises(AntiphonError, match="spoke no frame"):
        print_reply(
            Scripted(TextDelta("hi", (1,)), done("stop", "hi")), 24000, Path("answer.wav"), TextPrinter()
        )
    assert list(Path().iterdir()) == []


def test_a_stream_that_breaks_leaves_no_half_written_file() -> None:
    def breaking():
        yield AudioDelta(np.zeros(100, np.float32), 0, 1, 1)
        raise AntiphonError("broken")

    stream = Scripted()
    stream.events = breaking()
    with pytest.raises(AntiphonError, match="broken"):
        print_reply(stream, 24000, Path("answer.wav"), TextPrinter())
    assert list(Path().iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a POSIX signal")
def test_ctrl_c_keeps_what_was_said_and_exits_with_130(tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "antiphon", "run", str(tiny_bundle), "Tell me a long story.", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        samples = 0
        for line in process.stdout:
            samples += json.loads(line).get("samples", 0)
            if samples:
                break
        process.send_signal(signal.SIGINT)
        samples += sum(json.loads(line).get("samples", 0) for line in process.stdout)
        assert process.stderr.read() == "antiphon: Interrupted; what was said until then is in answer.wav.\n"
    assert process.returncode == 130
    assert list(Path().iterdir()) == [Path("answer.wav")]
    assert soundfile.info("answer.wav").frames >= samples


def test_a_conversation_answers_line_by_line_into_numbered_files(
    antiphon, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from antiphon.runtime.omni import load

    lines = iter(["Hello.", "And tomorrow?", ""])
    monkeypatch.setattr(chat, "_ask", lambda: next(lines))
    with load(tiny_bundle) as omni:
        chat.chat(
            omni,
            "You are brief.",
            Path("answer.wav"),
            {"max_text_tokens": 4, "max_frames": 8, "voice": "chelsie"},
            TextPrinter(),
        )
    assert sorted(path.name for path in Path().iterdir()) == ["answer-1.wav", "answer-2.wav"]


def test_standard_input_that_is_no_utf_8_is_one_sentence(antiphon, tiny_bundle: Path) -> None:
    code, output, error = antiphon("run", tiny_bundle, "-", stdin=b"hi \xff")
    assert (code, output, error) == (
        2,
        "",
        "antiphon: Standard input is not UTF-8 text: byte 3 is 0xff; send UTF-8 text.\n",
    )


def test_a_conversation_survives_a_line_that_is_no_text(
    antiphon, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from antiphon.runtime.omni import load

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"bad \xff\nHello.\n\n"), encoding="utf-8"))
    with load(tiny_bundle) as omni:
        chat.chat(
            omni, None, None, {"max_text_tokens": 4, "modalities": ("text",), "voice": None}, TextPrinter()
        )
    error = capsys.readouterr().err
    assert error.count("not valid Unicode: character 4") == 1 and error.count("TTFT") == 1


def test_the_closing_line_counts_one_token_as_one() -> None:
    assert "[stop, 1 token, TTFT" in closing_line(done("stop", "a"), None)
    assert "[stop, 2 tokens, TTFT" in closing_line(done("stop", "ab"), None)


def recording(rate: int, channels: int = 1) -> Path:
    """Two seconds of noise as a WAV file."""
    path = Path(f"voice-{rate}.wav")
    soundfile.write(
        path, np.random.default_rng(0).normal(0, 0.1, (2 * rate, channels)).astype(np.float32), rate
    )
    return path


@pytest.mark.parametrize(
    "manner",
    [
        lambda: ("--voice", "Ethan", "--style", "whisper", "--language", "German"),
        lambda: (
            "--voice",
            recording(44100, 2),
            "--style",
            "Slowly, with a smile.",
            "--interleave",
            "chunked:2,3",
        ),
        lambda: ("--voice", recording(8000), "--interleave", "adaptive:2.5"),
    ],
    ids=["names", "stereo", "telephone"],
)
def test_the_second_family_speaks_as_it_is_told(antiphon, hybrid_bundle: Path, manner) -> None:
    code, output, error = antiphon(
        "run", hybrid_bundle, "Good morning.", *SHORT, "--output", "spoken.wav", *manner()
    )
    assert code == 0 and output.strip() and "spoken.wav" in error
    assert 0 < soundfile.info("spoken.wav").frames <= 12 * 1920


def test_a_conversation_of_the_second_family_keeps_its_voice_and_style(
    antiphon, hybrid_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from antiphon.runtime.omni import load

    lines = iter(["Hello.", "And tomorrow?", ""])
    monkeypatch.setattr(chat, "_ask", lambda: next(lines))
    options = {
        "max_text_tokens": 4,
        "max_frames": 8,
        "style": "news",
        "language": "german",
        "interleave": "adaptive:2",
    }
    with load(hybrid_bundle) as omni:
        chat.chat(
            omni, None, Path("answer.wav"), options | {"voice": omni.voice(recording(16000))}, TextPrinter()
        )
    assert sorted(path.name for path in Path().glob("answer*")) == ["answer-1.wav", "answer-2.wav"]
