"""The Thinker's training rows, equal to those of inference: token ids, targets, features and logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...export.frontend import write_frontend
from ...graphs.config import OmniConfig
from ...graphs.layers.decoder import rotary_tables
from ...graphs.stages.audio_encoder import AudioEncoder
from ...graphs.stages.thinker import Thinker
from ...runtime.frontend.audio.audio_layout import audio_layout, audio_tokens
from ...runtime.frontend.prompt.front_end import FrontEnd

SILENT = -100
"""Target of rows without a loss."""


@dataclass(frozen=True, eq=False)
class Turn:
    """One question and its answer: token ids without those that Layout adds.

    `sound`: log-mel [mel, frames], heard before `prompt`.
    """

    prompt: list[int]
    answer: list[int]
    sound: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """ids and targets int64 [batch, tokens] (SILENT: no loss); sounds in the order of their placeholders."""

    ids: Tensor
    targets: Tensor
    sounds: list[np.ndarray]


class Layout:
    """Converts turns to the token ids of the runtime's front end."""

    def __init__(self, checkpoint: Path, config: OmniConfig) -> None:
        with TemporaryDirectory() as folder:
            write_frontend(checkpoint, config, Path(folder))
            self.frontend = FrontEnd(folder)
        start, turn_end = self.frontend.im_start, self.frontend.turn_end.tolist()
        self.encode = lambda text: self.frontend.encode_text(text).tolist()
        self._opening = [start, *self.encode("user\n")]
        self._asked = [*turn_end, *self.frontend.answer_opening.tolist()]
        self._answered, self._end = turn_end[1:], turn_end[0]
        # The ids around a turn with a recording, and around its placeholder.
        probe = self.frontend.prompt(
            [{"role": "user", "content": [{"type": "audio", "audio": np.zeros(16_000, np.float32)}]}]
        ).token_ids
        places = np.flatnonzero(probe == self.frontend.audio)
        self._before, self._after = int(probe[places[0] - 1]), int(probe[places[-1] + 1])
        audio = config.thinker.audio
        assert audio is not None, "the tiny model hears"
        self._window, self._reach, self._convolutions = (
            audio.n_window,
            audio.n_window_infer,
            audio.convolutions,
        )

    def tokens(self, sound: np.ndarray) -> int:
        """The number of placeholders for log-mel [mel, frames]."""
        return audio_tokens(sound.shape[1], self._window, self._convolutions)

    def ids(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        """Token ids of a conversation, and the target of each: the next id if it belongs to an answer or ends
        it."""
        ids: list[int] = []
        wanted: list[int] = []
        for number, turn in enumerate(turns):
            heard = (
                []
                if turn.sound is None
                else [self._before, *[self.frontend.audio] * self.tokens(turn.sound), self._after]
            )
            asked = [*(self._answered if number else []), *self._opening, *heard, *turn.prompt, *self._asked]
            answer = [*turn.answer, self._end]
            ids += asked + answer
            wanted += [SILENT] * len(asked) + answer
        return ids[:-1], wanted[1:]

    def batch(self, conversations: Sequence[Sequence[Turn]]) -> Batch:
        """A batch of conversations, padded at their ends."""
        rows = [self.ids(turns) for turns in conversations]
        longest = max(len(ids) for ids, _ in rows)
        ids, targets = (
            torch.zeros(len(rows), longest, dtype=torch.int64),
            torch.full((len(rows), longest), SILENT),
        )
        for number, (row, wanted) in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            targets[number, : len(row)] = torch.tensor(wanted)
        return Batch(
            ids, targets, [turn.sound for turns in conversations for turn in turns if turn.sound is not None]
        )

    def features(self, encoder: AudioEncoder, sounds: Sequence[np.ndarray]) -> tuple[Tensor, list[int]]:
        """Features [tokens, hidden] of all sounds, concatenated, and the number of tokens of each."""
        feeds, tokens = audio_layout(sounds, self._window, self._reach, convolutions=self._convolutions)
        (features,) = encoder(
            *(
                torch.from_numpy(feeds[name])
                for name in ("chunks", "window_index", "window_length", "output_index")
            )
        )
        return features, tokens


def answer_logits(
    thinker: Thinker, batch: Batch, placeholder: int, features: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Logits [rows, vocabulary] of all rows with a target, and the targets [rows]; `features` are those of
    Layout.features."""
    count, tokens = batch.ids.shape
    x = thinker.embedding[batch.ids]
    if features is not None:
        x = (
            x.reshape(count * tokens, -1)
            .index_put((torch.nonzero(batch.ids.reshape(-1) == placeholder)[:, 0],), features.to(x.dtype))
            .reshape(x.shape)
        )
    # Positions count text and audio tokens alike (frontend.positions); padding is at the ends.
    positions = torch.arange(tokens, dtype=torch.float32).expand(3, count, tokens)
    rotary = rotary_tables(positions, thinker.text.rope, thinker.text.head_dim)
    nothing = torch.zeros(0)
    layers: list[Any] = list(thinker.layers)
    for layer in layers[:-1]:
        x, *_ = layer(x, rotary, nothing, nothing, nothing, nothing)
    y, *_ = layers[-1].attention(layers[-1].input_norm(x), rotary, nothing, nothing, nothing, nothing)
    # Rows without a target end here, which saves an eighth of the time.
    wanted = batch.targets != SILENT
    x = (x + y)[wanted]
    x = x + layers[-1].feed_forward(layers[-1].feed_forward_norm(x))
    return thinker.head(thinker.norm(x)).float(), batch.targets[wanted]
