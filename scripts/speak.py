"""antiphon speak: a given text as speech, in a WAV file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import interrupts
from .run import standard_input

DEFAULT_OUTPUT = Path("speech.wav")


def speak(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder made by antiphon build.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say; - reads it from standard input.")],
    voice: Annotated[
        str | None,
        typer.Option(
            metavar="VOICE",
            help="A voice of the bundle (antiphon inspect lists them), or a recording of one.",
        ),
    ] = None,
    style: Annotated[
        str | None,
        typer.Option(metavar="STYLE", help="How to speak: a style of the bundle, or a description in words."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(metavar="NAME", help="Language of the speech.  [default: the model decides]")
    ] = None,
    interleave: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY", help="How text and speech take turns, for example chunked:4,4 or adaptive."
        ),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="WAV", help="Where the speech goes.")] = DEFAULT_OUTPUT,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="No chance anywhere: the most probable code.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal speech.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line per event.")] = False,
    max_frames: Annotated[
        int | None, typer.Option(metavar="N", help="Limit of the speech, in frames of 80 ms.")
    ] = None,
) -> None:
    """Speak a given text: the model answers nothing, it says what it is given."""
    # it needs soundfile, which a machine that only checks kernels may lack
    from .wav_file import check_wav_path

    check_wav_path(output)
    words = standard_input() if text == "-" else text
    with interrupts.ending_at_once():
        from ..runtime.omni import load
        from .answer import JsonPrinter, TextPrinter, print_reply

    options: dict[str, Any] = {"voice": voice, "style": style, "language": language, "interleave": interleave}
    options |= {"greedy": greedy, "seed": seed, "max_frames": max_frames}
    with load(bundle, max_streams=1) as omni:
        print_reply(
            omni.stream_speech(words, **options),
            omni.sample_rate,
            output,
            JsonPrinter() if json else TextPrinter(),
        )
