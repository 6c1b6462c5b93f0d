"""The Thinker: chunked prefill with the features of media, then the ids of an answer one by one.

Manifest ids used: im_end, eos (one id or a list; im_end where it is missing), audio, image, video, and
optionally think_open, think_close. Manifest constants: thinker_context (rows). The manifest's TalkerContract
says which hidden rows are kept for the Talker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..bundle.errors import ContextFull, InvalidInput
from ..bundle.manifest import Manifest
from ..bundle.sampling import SamplingParameters
from ..engines.base import Engine
from ..frontend.prompt.encoder_calls import EncoderCall
from ..frontend.prompt.front_end import Prompt
from ..frontend.prompt.positions import MediaItem
from ..scheduling.engine_lock import NORMAL, EngineLock
from ..states.pool import Slot, Snapshot
from .features import Features
from .noise import THINKER, Noise
from .talker_rows.tapped_rows import tapped_rows

OPENING_ROWS = 16
"""A think block that the chat template opens is looked for in so many rows at the end of a prompt."""


@dataclass(frozen=True)
class Segment:
    """Tokens to prefill: token_ids int64 [tokens], positions float32 [3, tokens],
    and the encoder calls that fill its placeholders.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    calls: Sequence[EncoderCall] = ()


@dataclass(frozen=True)
class Queued:
    """The fields of a ThinkerContext that change when turns are queued."""

    waiting: tuple[Segment, ...]
    media: tuple[MediaItem, ...]
    pending_id: int | None
    next_position: float
    answer_start: tuple[Snapshot, float] | None
    answers: tuple[tuple[int, int], ...]


@dataclass
class ThinkerContext:
    """The Thinker's side of a conversation: prefilled rows and queued turns. One worker uses it at a time."""

    states: Slot
    token_ids: list[int] = field(default_factory=list)
    """Ids of all rows of the kv states."""
    hidden_rows: dict[int, np.ndarray] = field(default_factory=dict)
    """Hidden rows, float32 [hidden], that the Talker may need (see tapped_rows), by row."""
    media: list[MediaItem] = field(default_factory=list)
    """The pieces of media of all turns, in order."""
    waiting: list[Segment] = field(default_factory=list)
    """Segments that are queued and not yet prefilled."""
    next_position: float = 0.0
    """Position of the token after all prefilled and queued ones."""
    pending_id: int | None = None
    """The last sampled id, until a run has read it."""
    answer_row: int = 0
    """Row of the first token of the latest answer: the rows before it are its prompt."""
    answer_start: tuple[Snapshot, float] | None = None
    """The states and the next position at that row, to which `cut_answer` returns.

    None before an answer and after a turn was queued behind it.
    """

    answers: list[tuple[int, int]] = field(default_factory=list)
    """(first row, row after the last) of every earlier answer."""

    @property
    def waiting_tokens(self) -> int:
        """The number of queued tokens."""
        return sum(len(segment.token_ids) for segment in self.waiting)

    def queue_prompt(self, prompt: Prompt) -> None:
        """Queue a turn whose positions count from 0."""
        self.answer_start = None
        self.waiting.append(
            Segment(prompt.token_ids, prompt.positions + np.float32(self.next_position), prompt.calls)
        )
        self.next_position += prompt.next_position
        self.media.extend(prompt.media)

    def queue_text(self, token_ids: Sequence[int] | np.ndarray) -> None:
        """Queue plain text tokens."""
        steps = np.arange(len(token_ids), dtype=np.float32) + np.float32(self.next_position)
        self.waiting.append(
            Segment(np.asarray(token_ids, np.int64), np.broadcast_to(steps, (3, len(token_ids))))
        )
        self.next_position += len(token_ids)

    def queued(self) -> Queued:
        """The queue as it is now, for `requeue`."""
        return Queued(
            tuple(self.waiting),
            tuple(self.media),
            self.pending_id,
            self.next_position,
            self.answer_start,
            tuple(self.answers),
        )

    def requeue(self, queued: Queued) -> None:
        """Drop what was queued after `queued` was taken. Nothing may have been prefilled since."""
        self.waiting, self.media, self.pending_id = (
            list(queued.waiting),
            list(queued.media),
            queued.pending_id,
        )
        self.next_position, self.answer_start, self.answers = (
            queued.next_position,
            queued.answer_start,
            list(queued.answers),
        )

    def end_answer(self, turn_end: Sequence[int]) -> None:
        """Queue the pending id of the latest answer and `turn_end`, which ends its turn."""
        pending = [] if self.pending_id is None else [self.pending_id]
        if self.answer_start is not None:
            self.answers.append((self.answer_row, self.states.length + self.waiting_tokens + len(pending)))
        self.queue_text([*pending, *turn_end])
        self.pending_id = None

    def turn_ids(self, rows: int | None = None) -> np.ndarray:
        """int64 [rows]: ids of all prefilled and queued tokens, or of the first `rows`.

        Tokens of earlier answers are -1, so control tokens inside an answer do not start a turn.
        """
        ids = np.concatenate(
            [np.asarray(self.token_ids, np.int64), *(segment.token_ids for segment in self.waiting)]
        )[:rows]
        for start, end in self.answers:
            ids[start:end] = -1
        return ids

    @property
    def answer_ids(self) -> list[int]:
        """All ids of the latest answer, the pending id too.

        Empty before an answer and after a turn was queued behind it.
        """
        if self.answer_start is None:
            return []
        # what a cut left of it
        kept = [token for segment in self.waiting for token in segment.token_ids.tolist()]
        pending = self.pending_id
        return [*self.token_ids[self.answer_row :], *kept, *([] if pending is None else [pending])]

    def cut_answer(self, tokens: int) -> None:
        """Keep the first `tokens` of the latest answer: the states return to its start,
        and the kept ids are queued.

        Recurrent states cannot be cropped, so they are restored and replayed; the next prefill then gives
        the states of a fresh one.
        """
        assert self.answer_start is not None and not self.waiting
        kept = self.answer_ids[:tokens]
        snapshot, self.next_position = self.answer_start
        self.states.restore(snapshot)
        del self.token_ids[self.answer_row :]
        self.pending_id = None
        if kept:
            self.queue_text(kept)


@dataclass(frozen=True)
class Token:
    """A text id of an answer.

    `is_last`: the length limit stops the text here. `spoken`: whether the Talker gets it.
    """

    id: int
    spoken: bool
    is_last: bool


class Thinker:
    """Runs the Thinker and the encoders for any conversation. It holds no state between calls."""

    def __init__(
        self, engines: Mapping[str, Engine], manifest: Manifest, engine_lock: EngineLock, chunk: int = 512
    ) -> None:
        """`chunk`: the most tokens of one prefill run. Between chunks other streams may run."""
        self._engines, self._manifest, self._engine_lock, self._chunk = engines, manifest, engine_lock, chunk
        self._engine = engines["thinker"]
        ids = manifest.ids
        eos = ids.get("eos", ids["im_end"])
        self.eos = frozenset(eos if isinstance(eos, list) else [eos])
        self._think = (ids.get("think_open"), ids.get("think_close"))
        contract = manifest.talker
        self._hidden_limit = (
            contract.hidden_rows if contract is not None and contract.hidden_taps == "content" else None
        )
        shapes = {spec.name: spec.shape for spec in self._engine.entry.inputs}
        self._hidden = int(shapes["features"][1])
        self._deepstack = int(shapes["deepstack"][0]) if "deepstack" in shapes else 0
        self.vocabulary = int(shapes["suppressed"][1])
        self.context_limit = manifest.constants.thinker_context

    def new_context(self) -> ThinkerContext:
        """The state of a conversation that has not begun."""
        return ThinkerContext(self._engine.new_states(1, self.context_limit).allocate())

    def check_room(self, context: ThinkerContext, tokens: int) -> None:
        """Raise AntiphonError when `tokens` more and one token of answer do not fit into the context."""
        rows = context.states.length + tokens
        if rows >= self.context_limit:
            raise ContextFull(
                f"The conversation has {rows} tokens, the model's context holds {self.context_limit} "
                "and needs room to answer; shorten it."
            )

    def check_stages(self, calls: Sequence[EncoderCall]) -> None:
        """Raise AntiphonError when an encoder that `calls` need is not in the bundle."""
        for call in calls:
            if call.stage not in self._engines:
                raise InvalidInput(
                    f"The bundle has no stage {call.stage}, which this input needs; "
                    "build it from a checkpoint that has the encoder."
                )

    def prefill(
        self, context: ThinkerContext, check: Callable[[], object], draw: dict[str, np.ndarray] | None = None
    ) -> int:
        """Prefill the queued segments of `context`.

        Returns the id sampled after the last token with the sampling inputs `draw`.

        Without `draw` the id has no meaning. `check` is called before every run and may raise to stop; the
        context is then as it was.
        The context keeps the hidden rows that the Talker may need (see tapped_rows).
        """
        self.check_room(context, context.waiting_tokens)
        before = context.states.snapshot()
        try:
            token = self._prefill(
                context, check, draw or self.sampling_inputs(SamplingParameters(temperature=0.0))
            )
        except BaseException:
            context.states.restore(before)
            del context.token_ids[before.length :]
            context.hidden_rows = {
                row: hidden for row, hidden in context.hidden_rows.items() if row < before.length
            }
            raise
        context.waiting.clear()
        return token

    def _prefill(
        self, context: ThinkerContext, check: Callable[[], object], draw: dict[str, np.ndarray]
    ) -> int:
        token_ids = np.concatenate([segment.token_ids for segment in context.waiting])
        positions = np.concatenate([segment.positions for segment in context.waiting], axis=1)
        features = self._features(context.waiting, check)
        first_row = context.states.length
        tapped = (
            tapped_rows(context.turn_ids(), self._manifest.ids, self._hidden_limit)
            if self._manifest.speaks
            else np.zeros(0, np.int64)
        )
        token, start = -1, 0
        while start < len(token_ids):
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
            first, last = np.searchsorted(tapped, (first_row + start, first_row + end))
            wanted = ("token", "hidden") if first < last else ("token",)
            outputs, _ = self._engine_lock.run(NORMAL, self._engine.run, feeds, (context.states,), wanted)
            for row in tapped[first:last].tolist():
                context.hidden_rows[row] = outputs["hidden"][0, row - context.states.length].copy()
            context.states.advance(end - start)
            context.token_ids.extend(token_ids[start:end].tolist())
            token = int(outputs["token"][0])
            start = end
        kept = set(tapped.tolist())
        context.hidden_rows = {row: hidden for row, hidden in context.hidden_rows.items() if row in kept}
        return token

    def answer(
        self,
        context: ThinkerContext,
        sampling: SamplingParameters,
        seed: int,
        before_step: Callable[[], int],
        on_step: Callable[[float], None],
    ) -> Iterator[Token]:
        """Prefill the queued segments, then yield the tokens of the answer until the end of the turn,
        which is not among them, or the limit.

        `before_step` returns the priority of the next run, may wait, and may raise to stop;
        `on_step` gets the seconds of each decode run. Wherever the iterator stops, the context is
        whole and the next turn can follow.
        """
        noise = Noise(seed, THINKER)
        draw = self.sampling_inputs(sampling)
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
        context.answer_start = (context.states.snapshot(), context.next_position)
        feeds = self._step_feeds(draw)
        marks = [token for token in context.token_ids[-OPENING_ROWS:] if token in self._think]
        thinking = bool(marks) and marks[-1] == self._think[0]  # a chat template may open the block itself
        for index in range(limit):
            if token in self.eos:
                return
            is_last = index + 1 == limit
            context.pending_id = token
            thinking = token != self._think[1] and (thinking or token == self._think[0])
            is_silent = thinking or token == self._think[1]
            # the token of an answer that is limited to one is spoken too: text never comes with silence
            yield Token(token, spoken=not is_silent and (not is_last or index == 0), is_last=is_last)
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
            outputs, seconds = self._engine_lock.run(
                priority, self._engine.run, feeds, (context.states,), ("token",)
            )
            on_step(seconds)
            context.states.advance(1)
            context.pending_id = None  # first: who reads the answer meanwhile sees no id twice
            context.token_ids.append(token)
            context.next_position += 1
            token = int(outputs["token"][0])

    def sampling_inputs(self, sampling: SamplingParameters) -> dict[str, np.ndarray]:
        """The sampling inputs of one row. The caller changes them in place."""
        masks = {name: np.zeros((1, self.vocabulary), bool) for name in ("penalised", "suppressed")}
        return {"noise": np.zeros(1, np.float32), **sampling.feeds(1), **masks}

    def _forbid_end(self, draw: dict[str, np.ndarray], forbidden: bool) -> None:
        draw["suppressed"][0, list(self.eos)] = forbidden

    def _step_feeds(self, draw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Feeds of a decode step for one token. The caller changes them in place."""
        return {
            "input_ids": np.zeros((1, 1), np.int64),
            "positions": np.zeros((3, 1, 1), np.float32),
            "query_length": np.ones(1, np.int64),
            "past_length": np.zeros(1, np.int64),
            **Features(self._hidden, self._deepstack).between(0, 0),
            "output_index": np.zeros(1, np.int64),
            **draw,
        }

    def _features(self, segments: Sequence[Segment], check: Callable[[], object]) -> Features:
        """The encoder outputs of a prefill.

        An encoder call runs when the chunk with its first token is prefilled.
        """
        calls, offset = [], 0
        for segment in segments:
            calls += [(call, offset) for call in segment.calls]
            offset += len(segment.token_ids)

        def encode(call: EncoderCall) -> dict[str, np.ndarray]:
            feeds = call.feeds()
            check()
            return self._engine_lock.run(NORMAL, self._engines[call.stage].run, feeds)[0]

        return Features(self._hidden, self._deepstack, calls, encode)
