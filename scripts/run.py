"""antiphon run: ask a bundle, read the answer as it is written, and keep what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime.bundle.errors import AntiphonError
from . import interrupts

DEFAULT_OUTPUT = Path("answer.wav")

Files = list[str]


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder made by antiphon build.")],
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="What to ask; - reads it from standard input.")
    ] = None,
    audio: Annotated[Files | None, typer.Option(metavar="F", help="An audio file; may be repeated.")] = None,
    image: Annotated[Files | None, typer.Option(metavar="F", help="An image file; may be repeated.")] = None,
    video: Annotated[Files | None, typer.Option(metavar="F", help="A video file; may be repeated.")] = None,
    system: Annotated[str | None, typer.Option(metavar="S", help="System prompt.")] = None,
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
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="WAV", help=f"Where the speech goes.  [default: {DEFAULT_OUTPUT}]", show_default=False
        ),
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="No chance anywhere: the most probable token and code.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal answers.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line per event.")] = False,
    text_only: Annotated[bool, typer.Option("--text-only", help="Switch speech off.")] = False,
    max_text_tokens: Annotated[int | None, typer.Option(metavar="N", help="Limit of the text.")] = None,
    max_frames: Annotated[
        int | None, typer.Option(metavar="N", help="Limit of the speech, in frames of 80 ms.")
    ] = None,
    use_audio_in_video: Annotated[
        bool, typer.Option("--use-audio-in-video", help="Hear the audio tracks of the videos too.")
    ] = False,
) -> None:
    """Ask a bundle: the text is printed as it is written, the speech goes into a WAV file while it is spoken.

    Without TEXT and files, on a terminal, this is a conversation: one line a turn, an
    empty line or Ctrl-D ends it.
    """
    question = standard_input() if text == "-" else text
    media = [
        *_parts("input_audio", "data", audio),
        *_parts("image_url", "url", image),
        *_parts("video_url", "url", video),
    ]
    parts = media + ([{"type": "text", "text": question}] if question else [])
    is_chat = text is None and not media
    if is_chat and not sys.stdin.isatty() or not is_chat and not parts:
        raise AntiphonError(
            'There is nothing to ask; give a text ("-" reads it from standard input) or a file with '
            "--audio, --image or --video."
        )
    if output is not None:
        from .wav_file import check_wav_path  # needs soundfile, which may be missing

        check_wav_path(output)
        if text_only:
            raise AntiphonError("--output and --text-only contradict each other; leave one of them out.")

    with interrupts.ending_at_once():
        from ..runtime.frontend.prompt.messages import parse_messages
        from ..runtime.omni import load
        from ..runtime.options import choose, read_options
        from .answer import JsonPrinter, TextPrinter, print_reply

    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system is not None else []
    if messages:
        parse_messages(messages)  # a conversation would report it at every turn
    options: dict[str, Any] = {
        "greedy": greedy,
        "seed": seed,
        "max_text_tokens": max_text_tokens,
        "max_frames": max_frames,
    }
    options |= {"style": style, "language": language, "interleave": interleave}
    options |= {"use_audio_in_video": use_audio_in_video} if not is_chat else {}
    with load(bundle, max_streams=1) as omni:
        if output is not None and not omni.manifest.speaks:
            raise AntiphonError(
                f"{bundle} holds no speech stages, so nothing can go to --output; leave it out."
            )
        speaks = omni.manifest.speaks and not text_only
        options |= {} if speaks else {"modalities": ("text",)}
        choose(read_options(options), omni.manifest)  # before the first question, also of a conversation
        # a recording is encoded once
        options |= {"voice": omni.voice(voice)} if speaks or voice is not None else {}
        target = (output or DEFAULT_OUTPUT) if speaks else None
        printer = JsonPrinter() if json else TextPrinter()
        if is_chat:
            from .chat import chat

            chat(omni, system, target, options, printer)
            return
        messages.append({"role": "user", "content": parts if media else question})
        print_reply(omni.stream(messages, **options), omni.sample_rate, target, printer)


def standard_input() -> str:
    """All of standard input, decoded as UTF-8 whatever the terminal's encoding.

    Raises AntiphonError for other bytes.
    """
    content = sys.stdin.buffer.read()
    try:
        return content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise AntiphonError(
            f"Standard input is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}; "
            "send UTF-8 text."
        ) from None


def _parts(kind: str, key: str, files: Files | None) -> list[dict[str, Any]]:
    # A URL stays text: Path would remove one of its slashes, and the error would be a missing file.
    return [{"type": kind, kind: {key: file if "://" in file else Path(file)}} for file in files or []]
