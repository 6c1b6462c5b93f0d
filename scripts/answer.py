"""Output of one answer: events to the terminal or as JSON lines, samples to a WAV file."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from ..runtime.bundle.errors import AntiphonError
from ..runtime.events import AudioDelta, Done, TextDelta
from ..runtime.reply import ReplyStream
from .console import seconds
from .wav_file import WavFile


class Printer(Protocol):
    """Shows the events of an answer."""

    def text(self, event: TextDelta) -> None:
        """New text."""

    def audio(self, event: AudioDelta) -> None:
        """A packet of speech."""

    def done(self, event: Done, output: Path | None) -> None:
        """The end of the answer; `output` is the WAV file with the speech, or None without speech."""


class TextPrinter:
    """Prints the text as it arrives, then one line of facts."""

    def text(self, event: TextDelta) -> None:
        """See Printer."""
        print(event.text, end="", flush=True)

    def audio(self, event: AudioDelta) -> None:
        """See Printer."""

    def done(self, event: Done, output: Path | None) -> None:
        """See Printer."""
        print(flush=True)
        print(closing_line(event, output), file=sys.stderr)


class JsonPrinter:
    """Prints one JSON object per line: kind, seconds since the start, and the event's fields.

    Samples are counted, not printed.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def text(self, event: TextDelta) -> None:
        """See Printer."""
        self._line("text", text=event.text, token_ids=event.token_ids)

    def audio(self, event: AudioDelta) -> None:
        """See Printer."""
        self._line(
            "audio",
            first_frame=event.first_frame,
            frames=event.frames,
            samples=len(event.samples),
            text_cursor=event.text_cursor,
        )

    def done(self, event: Done, output: Path | None) -> None:
        """See Printer."""
        timings = dataclasses.asdict(event.timings) | {"real_time_factor": event.timings.real_time_factor}
        self._line(
            "done",
            finish_reason=event.finish_reason,
            text=event.text,
            token_ids=event.token_ids,
            frames=len(event.codes),
            output=None if output is None else str(output),
            timings=timings,
        )

    def _line(self, kind: str, **values: Any) -> None:
        print(
            json.dumps(
                {"event": kind, "seconds": round(time.perf_counter() - self._began, 6), **values},
                ensure_ascii=False,
            ),
            flush=True,
        )


def print_reply(stream: ReplyStream, sample_rate: int, output: Path | None, printer: Printer) -> None:
    """Show `stream` to its end and write its speech to `output` (None: no speech).

    Ctrl-C stops the model within a frame, keeps the speech so far and prints where it is. Raises
    AntiphonError for an answer without text, or without the speech that was requested: no empty file is left
    behind.
    """
    done: Done | None = None
    writer = None if output is None else WavFile(output, sample_rate)
    try:
        with stream, writer or nullcontext() as file:
            for event in stream:
                if isinstance(event, TextDelta):
                    printer.text(event)
                elif isinstance(event, AudioDelta):
                    assert file is not None, "an answer that is not spoken has no audio"
                    # Before it is shown, so that the file holds everything that was shown, also after Ctrl-C.
                    file.write(event.samples)
                    printer.audio(event)
                else:
                    done = event
    except KeyboardInterrupt as interrupt:
        if writer is not None and writer.kept:
            interrupt.args = (f"Interrupted; what was said until then is in {output}.",)
        raise
    assert done is not None, "a stream ends with Done"
    spoken = file is not None and file.samples > 0
    printer.done(done, output if spoken else None)
    if done.finish_reason == "empty":
        raise AntiphonError(
            "The model ended its answer without a word, so nothing was written; "
            "ask in other words or with another --seed."
        )
    if file is not None and not spoken:
        raise AntiphonError(
            "The model wrote text but spoke no frame of it, so no WAV file was written; "
            "ask with another --seed, or with --text-only."
        )


def closing_line(done: Done, output: Path | None) -> str:
    """One line for people: why the answer ended, its length and its times."""
    timings = done.timings
    facts = [done.finish_reason, f"{len(done.token_ids)} {'token' if len(done.token_ids) == 1 else 'tokens'}"]
    if output is not None:
        facts += [f"{timings.audio_seconds:.2f} s of speech in {output}"]
    facts += [f"TTFT {seconds(timings.time_to_first_token)}"]
    if output is not None:
        facts += [
            f"TTFC {seconds(timings.time_to_first_frame)}",
            f"TTFA {seconds(timings.time_to_first_audio)}",
        ]
    facts += [f"total {seconds(timings.total)}"]
    if timings.real_time_factor is not None:
        facts += [f"RTF {timings.real_time_factor:.2f}"]
    return f"[{', '.join(facts)}]"
