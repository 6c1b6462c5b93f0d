"""The Talker with its code predictor: one frame a step.

Manifest id used: codec_eos. Manifest constants: talker_context, codebook_size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..bundle.manifest import Manifest
from ..bundle.sampling import SamplingParameters
from ..engines.base import Engine
from ..scheduling.engine_lock import EngineLock
from .aria import PenaltyWindow, Policy
from .noise import PREDICTOR, TALKER, Noise
from .talker_rows.rows import Spoken, TalkerRows, in_chunks


class Talker:
    """One answer's speech, as a FrameSource of `aria.speak`.

    Frames are a function of prompt, text and seed alone.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        manifest: Manifest,
        engine_lock: EngineLock,
        rows: TalkerRows,
        policy: Policy,
        sampling: SamplingParameters,
        predictor_sampling: SamplingParameters,
        seed: int,
        priority: Callable[[], int],
        chunk: int = 512,
    ) -> None:
        """`priority` is called before every run and may raise to stop.

        The end is allowed after `sampling.min_tokens` frames, at least one: an answer with
        text never has empty speech.
        """
        self._talker, self._predictor, self._engine_lock = (
            engines["talker"],
            engines["predictor"],
            engine_lock,
        )
        self._rows, self._priority, self._chunk = rows, priority, chunk
        assert manifest.talker is not None, "a bundle without speech has no Talker"
        self._frame_input = manifest.talker.frame_input
        self._end = manifest.id("codec_eos")
        self._limit = manifest.constants.talker_context
        self._states = self._talker.new_states(1, self._limit).allocate()
        vocabulary = int({spec.name: spec.shape for spec in self._talker.entry.inputs}["suppressed"][1])
        groups = {spec.name: spec.shape for spec in self._predictor.entry.inputs}["noise"][1]
        self._noise, self._residual_noise = (
            Noise(seed, TALKER),
            Noise(seed, PREDICTOR, range(1, 1 + int(groups))),
        )
        self.min_frames = max(1, sampling.min_tokens)
        self._draw = {"noise": np.zeros(1, np.float32), **sampling.feeds(1)}
        self._draw["penalised"] = np.zeros((1, vocabulary), bool)
        self._draw["suppressed"] = np.zeros((1, vocabulary), bool)
        self._draw["suppressed"][0, manifest.constants.codebook_size :] = True
        self._window = PenaltyWindow(policy, self._draw["penalised"][0])
        predictor_feeds = predictor_sampling.feeds(1)
        self._predictor_feeds = {
            "code0": np.zeros(1, np.int64),
            **{name: predictor_feeds[name] for name in ("temperature", "top_k", "top_p")},
        }
        self._last: Spoken | None = None
        self._frames = 0
        self.ended = False
        """Whether the Talker ended by itself. False where its context is full."""
        self.seconds = 0.0
        """Seconds of the runs for frames after the first, waiting not counted."""

    def step(self, text_ids: list[int], may_end: bool) -> np.ndarray | None:
        """See aria.FrameSource: codes int64 [groups], or None at the end of speech.

        Raises AntiphonError where the context has no room for the rows before the first frame.
        """
        self._draw["noise"][:] = self._noise.at(self._frames)
        self._draw["suppressed"][0, self._end] = not may_end or self._frames < self.min_frames
        if text_ids:
            self._window.fed_text()
        rows = self._rows.first(text_ids) if self._last is None else self._rows.next(text_ids, self._last)
        if self._frames and self._states.length + len(rows.text_ids) > self._limit:
            return None
        outputs: dict[str, np.ndarray] = {}
        for feeds in in_chunks(rows, self._chunk, self._frame_input):
            outputs = self._run(feeds)
        code0 = int(outputs["token"][0])
        if code0 == self._end:
            self.ended = True
            return None
        self._window.add(code0)
        self._last = self._residuals(code0, outputs["output_hidden"])
        self._frames += 1
        return self._last.codes

    def _run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tokens = feeds["text_ids"].shape[1]
        priority = self._priority()
        self._states.reserve(tokens)
        lengths = {
            "query_length": np.array([tokens]),
            "past_length": np.array([self._states.length]),
            "output_index": np.array([tokens - 1]),
        }
        outputs, seconds = self._engine_lock.run(
            priority,
            self._talker.run,
            feeds | lengths | self._draw,
            (self._states,),
            ("token", "output_hidden"),
        )
        self._count(seconds)
        self._states.advance(tokens)
        return outputs

    def _residuals(self, code0: int, hidden: np.ndarray) -> Spoken:
        """The frame whose first code is `code0`."""
        self._predictor_feeds["code0"][:] = code0
        feeds = self._predictor_feeds | {
            "hidden": hidden,
            "noise": self._residual_noise.at(self._frames)[None],
        }
        priority = self._priority()
        outputs, seconds = self._engine_lock.run(
            priority, self._predictor.run, feeds, (), ("codes", "frame_row")
        )
        self._count(seconds)
        return Spoken(outputs["codes"][0], outputs["frame_row"])

    def _count(self, seconds: float) -> None:
        if self._frames:
            self.seconds += seconds
