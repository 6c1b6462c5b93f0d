"""antiphon bench: how fast a bundle answers on this machine."""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime.errors import AntiphonError
from .console import print_json, print_table, seconds, size

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
    runs: Annotated[int, typer.Option(metavar="N", help="Measured answers after one that warms up; medians are reported.")] = 5,
) -> None:
    """Measure one stream: latencies, time per token and frame, real-time factor and memory, as medians over warm answers."""
    for name, value in (("--prompt-tokens", prompt_tokens), ("--text-tokens", text_tokens), ("--frames", frames), ("--runs", runs)):
        if value < 1:
            raise AntiphonError(f"{name} is {value}, expected a number of at least 1.")
    from ..runtime.omni import load

    with load(bundle, max_streams=1) as omni:
        messages = _prompt(omni, prompt_tokens)
        # the same seed every time: the same answer, so that the runs differ in time only
        options: dict[str, Any] = {"seed": 0, "max_text_tokens": text_tokens, "min_text_tokens": text_tokens, "max_frames": frames, "min_frames": frames}
        replies = [omni.generate(messages, **options) for _ in range(runs + 1)][1:]
    measured = {name: _median([getattr(reply.timings, name) for reply in replies]) for name in MEASURES}
    timings, memory, underruns = replies[0].timings, peak_memory(), max(reply.timings.underruns for reply in replies)
    lengths = {"prompt_tokens": timings.prefill_tokens, "text_tokens": len(replies[0].token_ids), "frames": len(replies[0].codes)}
    if json:
        machine = {"machine": platform.machine(), "cores": os.cpu_count()}
        result = {"bundle": str(bundle), **machine, "runs": runs, **lengths, "audio_seconds": timings.audio_seconds, "median": measured}
        print_json({**result, "underruns": underruns, "peak_memory_bytes": memory})
        return
    rows = [[label, _shown(name, measured[name])] for name, label in MEASURES.items()]
    rows += [["underruns, worst run", str(underruns)], ["peak memory of the process", size(memory)]]
    title = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in lengths.items())
    print_table(f"{bundle}: {title}, median of {runs}", ("measure", "value"), rows)


def peak_memory() -> int | None:
    """The most resident memory this process ever had, in bytes; None where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _prompt(omni: Any, tokens: int) -> list[dict[str, str]]:
    """A user turn whose whole prompt has at least `tokens` tokens: words are added until it is long enough."""
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
