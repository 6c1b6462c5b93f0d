"""Ten hours of audio through the audio encoder as a stream: tokens, time, and memory, which must not grow.

    python -m antiphon.scripts.benchmarks.long_audio BUNDLE [--hours 10] [--recording FILE]
        [--threads 2] [--json]

Without --recording one is made: 16 kHz int16 in a sparse WAV file, ten seconds of noise every two minutes.
Only the audio encoder is loaded. Memory is the peak of the process, above that with the loaded engine before
its first run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.manifest import read_manifest
from ...runtime.engines.onnxruntime.engine import OnnxEngine
from ...runtime.frontend.audio.audio_stream import AudioStream
from ...runtime.frontend.audio.mel import MelSettings
from ..console import print_json, print_table, seconds, size
from ..memory import Peak

RATE, BYTES = 16_000, 2
LONGEST_HOURS = 37
"""What the 32-bit sizes in a WAV file's header hold."""


def main() -> None:
    """Measure and print a table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--recording", type=Path, help="a recording of your own, of whatever length")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        with (
            synthetic_recording(arguments.hours)
            if arguments.recording is None
            else _given(arguments.recording) as recording
        ):
            result = measure(arguments.bundle, recording, arguments.threads)
    except AntiphonError as error:
        parser.exit(2, f"{error}\n")
    if arguments.json:
        print_json(result)
        return
    hours = result["hours"]
    rows = [
        ["length of the recording", f"{hours:.2f} h"],
        ["tokens", f"{result['tokens']:,}"],
        [
            "first pass: length and maximum",
            f"{seconds(result['first_pass_seconds'])}  "
            f"({seconds(result['first_pass_seconds'] / hours)} an hour)",
        ],
        [
            "second pass: log-mel and encoder",
            f"{seconds(result['second_pass_seconds'])}  "
            f"({seconds(result['second_pass_seconds'] / hours)} an hour)",
        ],
        [
            "of it the encoder",
            f"{seconds(result['encoder_seconds'])}  ({seconds(result['encoder_seconds'] / hours)} an hour)",
        ],
        ["memory before", size(result["memory_before_bytes"])],
        ["peak growth after 1 hour", size(result["growth_first_hour_bytes"])],
        ["peak growth at the end", size(result["growth_bytes"])],
    ]
    print_table(f"{arguments.bundle}: long audio as a stream", ["measure", "value"], rows)


def measure(bundle: Path, recording: Path, threads: int | None = None) -> dict[str, Any]:
    """Both passes over `recording` with the audio encoder of `bundle`:
    tokens, seconds, and bytes of peak memory above those before.
    """
    entry = read_manifest(bundle).stages["audio_encoder"]
    engine = OnnxEngine(bundle / entry.artifacts[0], entry, threads)
    audio = json.loads((bundle / "frontend" / "frontend.json").read_text(encoding="utf-8"))["audio"]
    settings = MelSettings(audio["sampling_rate"], audio["n_fft"], audio["hop_length"], audio["feature_size"])
    stream = AudioStream(
        recording, RATE, settings, audio["n_window"], audio["n_window_infer"], audio.get("convolutions", 3)
    )
    hour = 3600 * settings.sampling_rate // settings.hop_length  # mel frames

    with Peak() as peak:
        began = time.perf_counter()
        expected, first_pass = stream.tokens, time.perf_counter() - began
        began, encoder, tokens, frames, first_hour = time.perf_counter(), 0.0, 0, 0, None
        for feeds in stream.calls():
            started = time.perf_counter()
            tokens += len(engine.run(feeds)["features"])
            encoder += time.perf_counter() - started
            frames += feeds["chunks"].shape[0] * feeds["chunks"].shape[2]
            if first_hour is None and frames >= hour:
                first_hour = peak.growth
        second_pass, growth = time.perf_counter() - began, peak.growth
    assert tokens == expected, f"the encoder made {tokens} tokens, the layout says {expected}"
    return {
        "bundle": str(bundle),
        "hours": stream.seconds / 3600,
        "tokens": tokens,
        "first_pass_seconds": first_pass,
        "second_pass_seconds": second_pass,
        "encoder_seconds": encoder,
        "memory_before_bytes": peak.before,
        "growth_first_hour_bytes": first_hour,
        "growth_bytes": growth,
    }


@contextmanager
def synthetic_recording(hours: float) -> Iterator[Path]:
    """A WAV file of that length which takes little room on the disk; it is deleted in the end.

    Raises AntiphonError for an impossible length.
    """
    if not 0 < hours <= LONGEST_HOURS:
        raise AntiphonError(
            f"--hours is {hours:g}, expected more than 0 and at most {LONGEST_HOURS}, "
            "the most that a WAV file holds."
        )
    samples = int(hours * 3600 * RATE)
    noise = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, BYTES, RATE, 0, "NONE", ""))
            file.writeframes(np.zeros(1, np.int16).tobytes())
        header = path.stat().st_size - BYTES
        os.truncate(path, header + BYTES * samples)
        with path.open("r+b") as raw:
            # sizes of the file and of its samples
            for place, value in ((4, header - 8 + BYTES * samples), (header - 4, BYTES * samples)):
                raw.seek(place)
                raw.write(value.to_bytes(4, "little"))
            for start in range(0, samples, 120 * RATE):
                count = min(10 * RATE, samples - start)
                raw.seek(header + BYTES * start)
                raw.write(
                    (noise.standard_normal(count) * 3000).clip(-32768, 32767).astype(np.int16).tobytes()
                )
        yield path


@contextmanager
def _given(recording: Path) -> Iterator[Path]:
    yield recording


if __name__ == "__main__":
    main()
