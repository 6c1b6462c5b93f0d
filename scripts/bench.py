"""antiphon bench: how fast a bundle answers on this machine."""

from __future__ import annotations

import os
import platform
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..runtime.bundle.errors import AntiphonError
from . import interrupts
from .console import print_json, print_table, seconds, size

if TYPE_CHECKING:
    from ..runtime.events import Reply

MEASURES = {
    "time_to_first_token": "TTFT: first text token",
    "time_to_first_frame": "TTFC: first codec frame",
    "time_to_first_audio": "TTFA: first playable audio",
    "seconds_per_token": "Thinker, per token",
    "seconds_per_frame": "Talker and code predictor, per frame",
    "seconds_per_vocoder_frame": "Code2Wav, per frame",
    "total": "whole answer",
    "real_time_factor": "RTF: whole answer over its speech",
}


def bench(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder made by antiphon build.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
    prompt_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of the prompt, at least.")] = 32,
    text_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of the answer.")] = 48,
    frames: Annotated[int, typer.Option(metavar="N", help="Frames of its speech, 80 ms each.")] = 160,
    runs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Measured rounds after one that warms up; medians over all their answers are reported.",
        ),
    ] = 5,
    streams: Annotated[
        str,
        typer.Option(metavar="N,N", help="Answers at once in a round; every number is measured by itself."),
    ] = "1",
) -> None:
    """Measure answers, one or several at once: latencies, time per token and frame,
    real-time factor and memory, as medians over warm answers.
    """
    for name, value in (
        ("--prompt-tokens", prompt_tokens),
        ("--text-tokens", text_tokens),
        ("--frames", frames),
        ("--runs", runs),
    ):
        if value < 1:
            raise AntiphonError(f"{name} is {value}, expected a number of at least 1.")
    counts = _counts(streams)
    with interrupts.ending_at_once():
        from ..runtime.omni import load

    # The pool is left last: leaving the Omni stops the answers that the pool's threads wait for, also after
    # Ctrl-C.
    with ThreadPoolExecutor(max(counts)) as pool, load(bundle, max_streams=max(counts)) as omni:
        messages = _prompt(omni, prompt_tokens)
        options = {
            "max_text_tokens": text_tokens,
            "min_text_tokens": text_tokens,
            "max_frames": frames,
            "min_frames": frames,
        }

        def answer(seed: int) -> Reply:
            return omni.generate(messages, seed=seed, **options)

        measured = []
        for count in counts:
            # The same seeds in every round give the same answers, so that the rounds differ in time only.
            rounds = [list(pool.map(answer, range(count))) for _ in range(runs + 1)]
            replies = [reply for warm in rounds[1:] for reply in warm]
            measured.append(_measured(count, replies))
    reply = replies[0]
    lengths = {
        "prompt_tokens": reply.timings.prefill_tokens,
        "text_tokens": len(reply.token_ids),
        "frames": len(reply.codes),
    }
    if json:
        machine = {"machine": platform.machine(), "cores": os.cpu_count()}
        result = {
            "bundle": str(bundle),
            **machine,
            "runs": runs,
            **lengths,
            "audio_seconds": reply.timings.audio_seconds,
        }
        print_json({**result, **measured[0], "streams": measured})
        return
    rows = [
        [label, *(_shown(name, column["median"][name]) for column in measured)]
        for name, label in MEASURES.items()
    ]
    rows.append(["underruns, worst answer", *(str(column["underruns"]) for column in measured)])
    rows.append(["peak memory of the process", *(size(column["peak_memory_bytes"]) for column in measured)])
    title = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in lengths.items())
    columns = ["measure", *(f"{count} stream{'s' if count > 1 else ''}" for count in counts)]
    print_table(f"{bundle}: {title}, median of {runs}", columns, rows)


def _counts(streams: str) -> list[int]:
    """The comma-separated numbers in `streams`."""
    try:
        counts = [int(part) for part in streams.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise AntiphonError(
            f"--streams is {streams!r}, expected numbers of at least 1 separated by "
            "commas, for example 1,4,8."
        )
    return counts


def _measured(count: int, replies: list[Reply]) -> dict[str, Any]:
    """The measurements of `replies`, `count` at a time; memory is the peak of the process so far."""
    timings = [reply.timings for reply in replies]
    medians = {name: _median([getattr(timing, name) for timing in timings]) for name in MEASURES}
    underruns = max(timing.underruns for timing in timings)
    return {"streams": count, "median": medians, "underruns": underruns, "peak_memory_bytes": peak_memory()}


def peak_memory() -> int | None:
    """The peak resident memory of this process in bytes; None if the system does not report it."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _prompt(omni: Any, tokens: int) -> list[dict[str, str]]:
    """A user turn whose whole prompt has at least `tokens` tokens: words are added until it has."""
    words = 1
    while True:
        messages = [{"role": "user", "content": " ".join(["tell"] * words)}]
        missing = tokens - len(omni.front_end.prompt(messages).token_ids)
        if missing <= 0:
            return messages
        words += max(1, missing // 4)


def _shown(name: str, value: float | None) -> str:
    return f"{value:.3f}" if name == "real_time_factor" and value is not None else seconds(value)


def _median(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None
