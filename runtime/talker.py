"""The Talker with its code predictor: one frame a step, on Qwen3-Omni's dual track.

Manifest ids used beside those of the prompt: tts_pad, tts_eos, codec_eos. Manifest constants: talker_context, codebook_size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from .bundle import Manifest
from .engine import Engine
from .sampling import PREDICTOR, TALKER, Noise, SamplingParameters
from .states import StateSet
from .talker_prompt import NOTHING, TalkerPrompt
from .turns import Turns


class Talker:
    """One answer's speech, as a FrameSource of `aria.speak`. Frames are a function of prompt, text and seed alone."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        manifest: Manifest,
        turns: Turns,
        make_prompt: Callable[[int], TalkerPrompt],
        sampling: SamplingParameters,
        predictor_sampling: SamplingParameters,
        seed: int,
        priority: Callable[[], int],
        chunk: int = 512,
    ) -> None:
        """`make_prompt` gets the first text id. `priority` is asked before every run and may raise to stop. `sampling.min_tokens`
        frames come before the end is allowed, at least one: an answer with text never has empty speech."""
        self._talker, self._predictor, self._turns = engines["talker"], engines["predictor"], turns
        self._make_prompt, self._priority, self._chunk = make_prompt, priority, chunk
        self._pad, self._end = manifest.id("tts_pad"), manifest.id("codec_eos")
        self.context_limit = int(manifest.constants["talker_context"])
        self._states = StateSet(self._talker.entry.states, limit=self.context_limit)
        shapes = {spec.name: spec.shape for spec in self._talker.entry.inputs}
        vocabulary = int(shapes["suppressed"][1])
        self._thinker_hidden, self._row_size = int(shapes["hidden"][1]), int(shapes["frame_rows"][1])
        groups = {spec.name: spec.shape for spec in self._predictor.entry.inputs}["noise"][1]
        self._noise, self._residual_noise = Noise(seed, TALKER), Noise(seed, PREDICTOR, range(1, 1 + int(groups)))
        self._min_frames = max(1, sampling.min_tokens)
        self._draw = {"noise": np.zeros(1, np.float32), **sampling.feeds(1)}
        self._draw["penalised"] = np.zeros((1, vocabulary), bool)
        self._draw["suppressed"] = np.zeros((1, vocabulary), bool)
        self._draw["suppressed"][0, int(manifest.constants["codebook_size"]) :] = True
        predictor_feeds = predictor_sampling.feeds(1)
        self._predictor_feeds = {"code0": np.zeros(1, np.int64), **{name: predictor_feeds[name] for name in ("temperature", "top_k", "top_p")}}
        self._frame_row: np.ndarray | None = None
        self._step_feeds: dict[str, np.ndarray] = {}
        self._position = 0.0
        self._frames = 0
        self.ended = False
        """Whether the Talker came to its own end."""
        self.seconds = 0.0
        """Time spent in frames after the first, turns not counted."""

    @property
    def full(self) -> bool:
        """Whether the Talker's context has no room for another frame."""
        return self._states.length >= self.context_limit

    def step(self, text_ids: list[int], may_end: bool) -> np.ndarray | None:
        """See aria.FrameSource: codes int64 [groups], or None at the end of speech."""
        assert len(text_ids) <= 1, "the dual track adds one text row to one frame"
        self._draw["noise"][:] = self._noise.at(self._frames)
        self._draw["suppressed"][0, self._end] = not may_end or self._frames < self._min_frames
        if self._frame_row is None:
            code0, hidden = self._prefill(self._make_prompt(text_ids[0]))
        else:
            code0, hidden = self._decode(text_ids[0] if text_ids else self._pad, self._frame_row)
        if code0 == self._end:
            self.ended = True
            return None
        self._draw["penalised"][0, code0] = True
        codes, self._frame_row = self._residuals(code0, hidden)
        self._frames += 1
        return codes

    def _prefill(self, prompt: TalkerPrompt) -> tuple[int, np.ndarray]:
        outputs: dict[str, np.ndarray] = {}
        rows = len(prompt.text_ids)
        for start in range(0, rows, self._chunk):
            end = min(start + self._chunk, rows)
            first, last = np.searchsorted(prompt.hidden_index, (start, end))
            outputs = self._run(
                {
                    "text_ids": prompt.text_ids[None, start:end],
                    "hidden": prompt.hidden[first:last],
                    "hidden_index": prompt.hidden_index[first:last] - start,
                    "codec_ids": prompt.codec_ids[None, start:end],
                    "frame_rows": np.zeros((0, self._row_size), np.float32),
                    "frame_index": np.zeros(0, np.int64),
                    "positions": prompt.positions[:, None, start:end],
                }
            )
        self._position = prompt.next_position
        self._step_feeds = {
            "text_ids": np.zeros((1, 1), np.int64),
            "hidden": np.zeros((0, self._thinker_hidden), np.float32),
            "hidden_index": np.zeros(0, np.int64),
            "codec_ids": np.full((1, 1), NOTHING),
            "frame_rows": np.zeros((1, self._row_size), np.float32),
            "frame_index": np.zeros(1, np.int64),
            "positions": np.zeros((3, 1, 1), np.float32),
        }
        return int(outputs["token"][0]), outputs["output_hidden"]

    def _decode(self, text_id: int, frame_row: np.ndarray) -> tuple[int, np.ndarray]:
        feeds = self._step_feeds
        feeds["text_ids"][...] = text_id
        feeds["frame_rows"][...] = frame_row
        feeds["positions"][...] = self._position
        self._position += 1
        outputs = self._run(feeds)
        return int(outputs["token"][0]), outputs["output_hidden"]

    def _run(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tokens = rows["text_ids"].shape[1]
        priority = self._priority()
        self._states.reserve(tokens)
        lengths = {"query_length": np.array([tokens]), "past_length": np.array([self._states.length]), "output_index": np.array([tokens - 1])}
        with self._turns.take(priority):
            began = time.perf_counter()
            outputs = self._talker.run(rows | lengths | self._draw, self._states, ("token", "output_hidden"))
            self._count(began)
        self._states.advance(tokens)
        return outputs

    def _residuals(self, code0: int, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The frame that begins with `code0`, and its row for the next step."""
        self._predictor_feeds["code0"][:] = code0
        feeds = self._predictor_feeds | {"hidden": hidden, "noise": self._residual_noise.at(self._frames)[None]}
        priority = self._priority()
        with self._turns.take(priority):
            began = time.perf_counter()
            outputs = self._predictor.run(feeds, None, ("codes", "frame_row"))
            self._count(began)
        return outputs["codes"][0], outputs["frame_row"]

    def _count(self, began: float) -> None:
        if self._frames:
            self.seconds += time.perf_counter() - began
