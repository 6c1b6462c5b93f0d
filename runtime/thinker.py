"""The Thinker of one conversation: features in, chunked prefill, then ids one by one.

Manifest ids used: im_end, eos (one id or a list; im_end where it is missing), audio, image, video. Manifest constant: thinker_context (rows).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .bundle import Manifest
from .engine import Engine
from .errors import AntiphonError
from .sampling import THINKER, Noise, SamplingParameters
from .states import StateSet
from .turns import NORMAL, Turns

if TYPE_CHECKING:
    from .frontend.positions import MediaItem
    from .frontend.prompt import EncoderCall, Prompt


@dataclass(frozen=True)
class Segment:
    """Tokens to prefill: token_ids int64 [tokens], positions float32 [3, tokens], and the encoder calls that fill its placeholders."""

    token_ids: np.ndarray
    positions: np.ndarray
    calls: Sequence[EncoderCall] = ()


@dataclass
class ThinkerContext:
    """What a conversation has fed to its Thinker, and what waits to be fed. Used by one worker at a time."""

    states: StateSet
    token_ids: list[int] = field(default_factory=list)
    """Every id in the kv states, by row."""
    hidden_rows: dict[int, np.ndarray] = field(default_factory=dict)
    """Tapped hidden row, float32 [hidden], of every multimodal token, by its row."""
    media: list[MediaItem] = field(default_factory=list)
    """The pieces of media of all turns, in order."""
    waiting: list[Segment] = field(default_factory=list)
    """Segments queued and not yet prefilled."""
    next_position: float = 0.0
    """Position of the token after everything fed and waiting."""
    unfed: list[int] = field(default_factory=list)
    """The last sampled id where no run has read it yet."""
    answer_row: int = 0
    """Row of the first token of the latest answer: what lies before is its prompt."""

    @property
    def waiting_tokens(self) -> int:
        return sum(len(segment.token_ids) for segment in self.waiting)

    def queue_prompt(self, prompt: Prompt) -> None:
        """Queue a turn whose positions count from 0."""
        self.waiting.append(Segment(prompt.token_ids, prompt.positions + np.float32(self.next_position), prompt.calls))
        self.next_position += prompt.next_position
        self.media.extend(prompt.media)

    def queue_text(self, token_ids: Sequence[int] | np.ndarray) -> None:
        """Queue plain text tokens."""
        steps = np.arange(len(token_ids), dtype=np.float32) + np.float32(self.next_position)
        self.waiting.append(Segment(np.asarray(token_ids, np.int64), np.broadcast_to(steps, (3, len(token_ids)))))
        self.next_position += len(token_ids)


@dataclass(frozen=True)
class Token:
    """A sampled text id. `is_last`: the length limit stops the text here. `spoken`: whether the Talker gets it."""

    id: int
    spoken: bool
    is_last: bool


class Thinker:
    """Runs the Thinker and the encoders for any conversation; holds no state between calls."""

    def __init__(self, engines: Mapping[str, Engine], manifest: Manifest, turns: Turns, chunk: int = 512) -> None:
        """`chunk`: the most tokens of one prefill run; between chunks other streams get their turn."""
        self._engines, self._manifest, self._turns, self._chunk = engines, manifest, turns, chunk
        self._engine = engines["thinker"]
        ids = manifest.ids
        eos = ids.get("eos", ids["im_end"])
        self.eos = frozenset(eos if isinstance(eos, list) else [eos])
        self._media_ids = np.array([ids[name] for name in ("audio", "image", "video") if name in ids], np.int64)
        shapes = {spec.name: spec.shape for spec in self._engine.entry.inputs}
        self._hidden = int(shapes["features"][1])
        self._deepstack = int(shapes["deepstack"][0]) if "deepstack" in shapes else 0
        self.vocabulary = int(shapes["suppressed"][1])
        self.context_limit = int(manifest.constants["thinker_context"])

    def new_context(self) -> ThinkerContext:
        """The state of a conversation that has not begun."""
        return ThinkerContext(StateSet(self._engine.entry.states, limit=self.context_limit))

    def check_room(self, context: ThinkerContext, tokens: int) -> None:
        """Raise AntiphonError when `tokens` more and one token of answer do not fit into the context."""
        rows = context.states.length + tokens
        if rows >= self.context_limit:
            raise AntiphonError(f"The conversation has {rows} tokens, the model's context holds {self.context_limit} and needs room to answer; shorten it.")

    def check_stages(self, calls: Sequence[EncoderCall]) -> None:
        """Raise AntiphonError when an encoder that `calls` need is not in the bundle."""
        for call in calls:
            if call.stage not in self._engines:
                raise AntiphonError(f"The bundle has no stage {call.stage}, which this input needs; build it from a checkpoint that has the encoder.")

    def prefill(self, context: ThinkerContext, check: Callable[[], object], draw: dict[str, np.ndarray] | None = None) -> int:
        """Feed what waits in `context`; returns the id sampled after the last token with the sampling inputs `draw`.

        Without `draw` the id means nothing. `check` is called before every run and may raise to stop: then the context is as it was.
        Tapped hidden rows of multimodal tokens are kept in the context.
        """
        self.check_room(context, context.waiting_tokens)
        before = context.states.snapshot()
        try:
            token = self._prefill(context, check, draw or self.draw_feeds(SamplingParameters(temperature=0.0)))
        except BaseException:
            context.states.restore(before)
            del context.token_ids[before.length :]
            context.hidden_rows = {row: hidden for row, hidden in context.hidden_rows.items() if row < before.length}
            raise
        context.waiting.clear()
        return token

    def _prefill(self, context: ThinkerContext, check: Callable[[], object], draw: dict[str, np.ndarray]) -> int:
        features = self._encode(context.waiting, check)
        token_ids = np.concatenate([segment.token_ids for segment in context.waiting])
        positions = np.concatenate([segment.positions for segment in context.waiting], axis=1)
        is_media = np.isin(token_ids, self._media_ids)
        token = -1
        for start in range(0, len(token_ids), self._chunk):
            end = min(start + self._chunk, len(token_ids))
            check()
            context.states.reserve(end - start)
            feeds = {
                "input_ids": token_ids[None, start:end],
                "positions": positions[:, None, start:end],
                "query_length": np.array([end - start]),
                "past_length": np.array([context.states.length]),
                **features.between(start, end),
                "output_index": np.array([end - start - 1]),
                **draw,
            }
            is_tapped = self._manifest.speaks and bool(is_media[start:end].any())
            wanted = ("token", "hidden") if is_tapped else ("token",)
            with self._turns.take(NORMAL):
                outputs = self._engine.run(feeds, context.states, wanted)
            for place in np.flatnonzero(is_media[start:end]) if is_tapped else ():
                context.hidden_rows[context.states.length + int(place)] = outputs["hidden"][0, place].copy()
            context.states.advance(end - start)
            context.token_ids.extend(token_ids[start:end].tolist())
            token = int(outputs["token"][0])
        return token

    def answer(
        self, context: ThinkerContext, sampling: SamplingParameters, seed: int, before_step: Callable[[], int], on_step: Callable[[float], None]
    ) -> Iterator[Token]:
        """Prefill what waits, then yield the answer's tokens, the end of turn excluded, until it or the limit comes.

        `before_step` returns the priority of the next run, may wait, and may raise to stop; `on_step` gets the seconds of each decode
        run. Wherever the iterator stops, the context is whole and the next turn can follow.
        """
        noise = Noise(seed, THINKER)
        draw = self.draw_feeds(sampling)
        self._forbid_end(draw, sampling.min_tokens > 0)
        draw["noise"][:] = noise.at(0)
        if sampling.repetition_penalty != 1.0:
            draw["penalised"][0, context.token_ids] = True
            for segment in context.waiting:
                draw["penalised"][0, segment.token_ids] = True
        limit = self.context_limit - context.states.length - context.waiting_tokens
        if sampling.max_tokens is not None:
            limit = min(limit, sampling.max_tokens)
        token = self.prefill(context, before_step, draw)
        context.answer_row = context.states.length
        feeds = self._step_feeds(draw)
        for index in range(limit):
            if token in self.eos:
                return
            is_last = index + 1 == limit
            context.unfed = [token]
            # an answer of a single token by its limit is spoken all the same: speech for text, never silence
            yield Token(token, spoken=not is_last or index == 0, is_last=is_last)
            if is_last:
                return
            priority = before_step()
            self._forbid_end(draw, index + 1 < sampling.min_tokens)
            draw["noise"][:] = noise.at(index + 1)
            if sampling.repetition_penalty != 1.0:
                draw["penalised"][0, token] = True
            feeds["input_ids"][...] = token
            feeds["positions"][...] = context.next_position
            feeds["past_length"][...] = context.states.length
            context.states.reserve(1)
            with self._turns.take(priority):
                began = time.perf_counter()
                outputs = self._engine.run(feeds, context.states, ("token",))
                on_step(time.perf_counter() - began)
            context.states.advance(1)
            context.token_ids.append(token)
            context.next_position += 1
            context.unfed = []
            token = int(outputs["token"][0])

    def draw_feeds(self, sampling: SamplingParameters) -> dict[str, np.ndarray]:
        """The sampling inputs of one row, to be changed in place."""
        masks = {name: np.zeros((1, self.vocabulary), bool) for name in ("penalised", "suppressed")}
        return {"noise": np.zeros(1, np.float32), **sampling.feeds(1), **masks}

    def _forbid_end(self, draw: dict[str, np.ndarray], forbidden: bool) -> None:
        draw["suppressed"][0, list(self.eos)] = forbidden

    def _step_feeds(self, draw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Feeds of a decode step for one token, to be changed in place."""
        return {
            "input_ids": np.zeros((1, 1), np.int64),
            "positions": np.zeros((3, 1, 1), np.float32),
            "query_length": np.ones(1, np.int64),
            "past_length": np.zeros(1, np.int64),
            **_Features(self._hidden, self._deepstack).between(0, 0),
            "output_index": np.zeros(1, np.int64),
            **draw,
        }

    def _encode(self, segments: Sequence[Segment], check: Callable[[], object]) -> _Features:
        features = _Features(self._hidden, self._deepstack)
        offset = 0
        for segment in segments:
            for call in segment.calls:
                check()
                with self._turns.take(NORMAL):
                    outputs = self._engines[call.stage].run(call.feeds)
                features.add(outputs, np.asarray(call.rows, np.int64) + offset)
            offset += len(segment.token_ids)
        return features


class _Features:
    """Encoder outputs of one prefill and the tokens they belong to."""

    def __init__(self, hidden: int, deepstack: int) -> None:
        self._rows = [np.zeros((0, hidden), np.float32)]
        self._index = [np.zeros(0, np.int64)]
        self._deep_rows = [np.zeros((deepstack, 0, hidden), np.float32)]
        self._deep_index = [np.zeros(0, np.int64)]
        self._merged: Any = None

    def add(self, outputs: Mapping[str, np.ndarray], index: np.ndarray) -> None:
        assert len(outputs["features"]) == len(index), f"an encoder gave {len(outputs['features'])} rows for {len(index)} tokens"
        self._rows.append(outputs["features"])
        self._index.append(index)
        if "deepstack" in outputs:
            self._deep_rows.append(outputs["deepstack"])
            self._deep_index.append(index)

    def between(self, start: int, end: int) -> dict[str, np.ndarray]:
        """Feeds of the chunk of tokens start .. end, in token order and counted from its start."""
        if self._merged is None:
            index, deep_index = np.concatenate(self._index), np.concatenate(self._deep_index)
            order, deep_order = np.argsort(index), np.argsort(deep_index)
            rows, deep_rows = np.concatenate(self._rows)[order], np.concatenate(self._deep_rows, axis=1)[:, deep_order]
            self._merged = rows, index[order], deep_rows, deep_index[deep_order]
        rows, index, deep_rows, deep_index = self._merged
        first, last = np.searchsorted(index, (start, end))
        feeds = {"features": rows[first:last], "feature_index": index[first:last] - start}
        if len(deep_rows):
            first, last = np.searchsorted(deep_index, (start, end))
            feeds |= {"deepstack": deep_rows[:, first:last], "deepstack_index": deep_index[first:last] - start}
        return feeds
