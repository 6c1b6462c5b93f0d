"""Text answers to a long video: its tokens, the time until the first token of the answer, and memory.

    python -m antiphon.scripts.benchmarks.video BUNDLE [--seconds 400] [--height 720] [--frames-per-second 1]
        [--threads 2] [--json]

Writes an MP4 of a square that crosses the picture and a tone that rises, and asks about it with its audio
heard and speech off. Only the Thinker and the encoders are loaded. Memory is the peak of the process, above
that before the question.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.errors import AntiphonError, require_extra
from ...runtime.bundle.manifest import read_manifest
from ...runtime.engines.base import Engine
from ...runtime.engines.onnxruntime.engine import OnnxEngine
from ...runtime.events import Done
from ...runtime.frontend.prompt.front_end import FrontEnd
from ...runtime.omni import Omni
from ...runtime.states.pool import UNLIMITED, Slot, StatePool
from ..console import print_json, print_table, seconds, size
from ..inspect import state_bytes
from ..memory import Peak

STAGES = ("audio_encoder", "vision_encoder", "thinker")
SOUND_RATE, ANSWER = 16_000, 8


class Timed:
    """An engine that keeps the seconds of its runs and counts the features it makes."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.entry = engine, engine.entry
        self.taken: list[float] = []
        self.features = 0

    def new_states(self, rows: int = 1, capacity: int = UNLIMITED) -> StatePool:
        """See Engine.new_states."""
        return self._engine.new_states(rows, capacity)

    def close(self) -> None:
        """See Engine.close."""
        self._engine.close()

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        slots: Sequence[Slot] = (),
        outputs: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """See Engine.run."""
        began = time.perf_counter()
        result = self._engine.run(feeds, slots, outputs)
        self.taken.append(time.perf_counter() - began)
        self.features += len(result.get("features", ()))
        return result


def main() -> None:
    """Measure and print a table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=int, default=400)
    parser.add_argument("--height", type=int, default=720, help="the width follows for 16:9")
    parser.add_argument("--frames-per-second", type=float, default=1.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        for name, value, least in (("--seconds", arguments.seconds, 1), ("--height", arguments.height, 32)):
            if value < least:
                raise AntiphonError(f"{name} is {value}, expected at least {least}.")
        with tempfile.TemporaryDirectory() as folder:
            film = write_film(Path(folder) / "film.mp4", arguments.seconds, arguments.height)
            result = measure(arguments.bundle, film, arguments.frames_per_second, arguments.threads)
    except AntiphonError as error:
        parser.exit(2, f"{error}\n")
    if arguments.json:
        print_json(result)
        return
    rows = [[f"tokens, {name}", f"{value:,}"] for name, value in result["tokens"].items()]
    rows += [[name.replace("_", " "), seconds(value)] for name, value in result["seconds"].items()]
    rows += [
        ["each token after it", seconds(result["seconds_per_token"])],
        ["peak growth of memory", size(result["growth_bytes"])],
    ]
    rows += [["of it the Thinker's states, by the formula", size(result["formula_bytes"])]]
    print_table(
        f"{arguments.bundle}: {arguments.seconds} s of video, {arguments.height} lines",
        ["measure", "value"],
        rows,
    )


def measure(bundle: Path, film: Path, frames_per_second: float, threads: int | None = None) -> dict[str, Any]:
    """One question about `film`, answered with ANSWER tokens.

    Returns tokens of the prompt by kind; seconds until the first token, and of it: prompt (decoding,
    resizing, the first pass over the sound, text), the stages' runs, and features (making what the encoders
    take); growth_bytes, and formula_bytes of the Thinker's states. Raises AntiphonError for a bundle that can
    not see or hear, and for a film that the context does not hold.
    """
    manifest = read_manifest(bundle)
    missing = [name for name in STAGES if name not in manifest.stages]
    if missing:
        raise AntiphonError(
            f"{bundle} has no stage {missing[0]}; build it from a checkpoint that sees and hears."
        )
    engines = {
        name: Timed(OnnxEngine(bundle / manifest.stages[name].artifacts[0], manifest.stages[name], threads))
        for name in STAGES
    }
    front_end = FrontEnd(bundle / "frontend")
    question = [
        {"type": "video_url", "video_url": {"url": str(film)}},
        {"type": "text", "text": "What moves, and where to?"},
    ]
    limits = {
        "min_text_tokens": ANSWER,
        "max_text_tokens": ANSWER,
        "use_audio_in_video": True,
        "video_fps": frames_per_second,
    }
    with Peak() as peak, Omni(manifest, engines, front_end, max_streams=1) as omni:
        began = time.perf_counter()
        stream = omni.stream(
            [{"role": "user", "content": question}], greedy=True, modalities=("text",), **limits
        )
        prompt = time.perf_counter() - began
        done = next(event for event in stream if isinstance(event, Done))
        growth = peak.growth
    timings, thinker = done.timings, engines["thinker"]
    assert timings.time_to_first_token is not None
    parts = {
        "prompt": prompt,
        **{name: sum(engines[name].taken) for name in STAGES[:2]},
        "thinker": sum(thinker.taken[: 1 - ANSWER]),
    }
    fixed, per_row = state_bytes(thinker.entry)
    return {
        "bundle": str(bundle),
        "tokens": {
            "video": engines["vision_encoder"].features,
            "audio": engines["audio_encoder"].features,
            "all": timings.prefill_tokens,
        },
        "seconds": {
            "until_the_first_token": timings.time_to_first_token,
            **parts,
            "features": timings.time_to_first_token - sum(parts.values()),
        },
        "seconds_per_token": timings.seconds_per_token,
        "growth_bytes": growth,
        "formula_bytes": fixed + per_row * (timings.prefill_tokens + ANSWER - 1),
    }


def write_film(path: Path, duration: int, height: int, frames_per_second: int = 1) -> Path:
    """An MP4 of `duration` seconds, 16:9: a white square that moves a little with every frame,
    and a tone from 200 Hz up an octave.
    """
    require_extra("media", "Writing a video", "av")
    import av

    height -= height % 2
    width, side, frames = height * 16 // 9 // 2 * 2, height // 4, duration * frames_per_second
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=frames_per_second)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        track = output.add_stream("aac", rate=SOUND_RATE, layout="mono")
        sweep = 200 * np.exp2(np.arange(duration * SOUND_RATE) / (duration * SOUND_RATE))
        tone = (8000 * np.sin(2 * np.pi * np.cumsum(sweep) / SOUND_RATE)).astype(np.int16)
        for index in range(frames):
            picture = np.full((height, width, 3), (30, 60, 90), np.uint8)
            x, y = (width - side) * index // max(1, frames - 1), (height - side) * (index % 20) // 20
            picture[y : y + side, x : x + side] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, frames_per_second)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        sound = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        sound.sample_rate = SOUND_RATE
        for packet in (*track.encode(sound), *track.encode(None)):
            output.mux(packet)
    return path


if __name__ == "__main__":
    main()
