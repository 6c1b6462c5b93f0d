"""Training data of the Talker: the row sequences that the runtime feeds.

Each has a codec prompt from another utterance of the voice, and a newly drawn interleave of text and frames.
Most have a lead of 1 to 8 rows or all text, and R from 0.3 to 1 of the item's own frames per row, so that the
published bound of ARIA holds at every prefix. A quarter alternate four rows and four frames. Every time one
of several variations of the recording is drawn (train_tiny.codes), because with a single one the Talker
memorises its 3,600 utterances. train_tiny.alignment finds the token that each frame speaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...graphs.config import OmniConfig
from ...runtime.stages.aria import Policy, adaptive, chunked
from ...runtime.stages.talker_rows.rows import NOTHING
from ...runtime.stages.talker_rows.sequence_prompt import SpeakingStyle, interleaved_prompt
from .alignment import Aligner
from .corpus import Corpus
from .shape import VOICES

LEADS = 8
LOWEST_SHARE = 0.3
CHUNKED_SHARE, ALL_TEXT_SHARE = 0.25, 0.15
PROMPT_FRAMES = (12, 32)
"""Minimum and maximum frames of a voice's codec prompt."""
CONTENT_ROWS = 16
BATCH_ROWS = 2000
LONGEST = 260
"""In frames; longer utterances are left out."""
MOST_AHEAD = 16
"""The largest number of text rows ahead of the voice that is a class of its own; larger numbers share it."""


@dataclass(frozen=True)
class Rows:
    """One training sequence.

    text_ids and codec_ids int64 [rows] (-1: none), hidden int64 [content rows], frames int64 [n, groups] at
    rows `frame_index`. After row `asked[i]` the target is `answers[i]`: a first code, or the end where
    `may_end[i]`.
    """

    text_ids: np.ndarray
    codec_ids: np.ndarray
    hidden_index: np.ndarray
    frames: np.ndarray
    frame_index: np.ndarray
    asked: np.ndarray
    answers: np.ndarray
    may_end: np.ndarray
    spoken: np.ndarray
    """Index of the token that frame i speaks, int64 [frames + 1]; the end of the text for the end."""
    ahead: np.ndarray
    """Number of text rows fed from that token on, int64 [frames + 1]."""
    targets: np.ndarray
    """The spoken frames, int64 [frames, groups]; `asked` has one more row, for the end."""


@dataclass(frozen=True)
class Track:
    """The rows after the prompt.

    Their text ids (-1: none), the rows that are (also) a frame, the rows after which a first code or the end
    is the target, and whether the end is allowed there.
    """

    text_ids: list[int]
    frame_rows: list[int]
    asked: list[int]
    may_end: list[bool]


def interleaved(text: list[int], frames: int, policy: Policy, end_id: int) -> Track:
    """The rows that runtime.stages.aria.speak feeds for `frames` frames of `text`."""
    rows = [*text, end_id]
    track = Track([], [], [], [])
    fed = 0
    for frame in range(frames + 1):
        if frame:
            track.frame_rows.append(len(track.text_ids))
            track.text_ids.append(NOTHING)
        # The runtime masks the end until all text is fed: text that is left when speech ends is fed then.
        wanted = len(rows) if frame == frames else min(len(rows), policy.text_rows_before(frame + 1))
        if wanted > fed:
            track.text_ids.extend(rows[fed:wanted])
            fed = wanted
        track.asked.append(len(track.text_ids) - 1)
        track.may_end.append(fed == len(rows))
    return track


def dual_track(text: list[int], frames: int, end_id: int, pad_id: int) -> Track:
    """Text row k is added to the row before frame k, and padding after the end of the text.

    The first row is text alone.
    """
    rows = [*text, end_id] + [pad_id] * max(0, frames - len(text))
    return Track(
        rows[: frames + 1], list(range(1, frames + 1)), list(range(frames + 1)), [True] * (frames + 1)
    )


def draw_policy(noise: np.random.Generator, tokens: int, frames: int) -> Policy:
    """A policy with a lead that keeps ARIA's bound for an item of `tokens` text rows and `frames` frames."""
    kind = noise.random()
    ratio = max(0.05, noise.uniform(LOWEST_SHARE, 1.0) * frames / tokens)
    if kind < CHUNKED_SHARE:
        return chunked(4, 4)
    lead = tokens + 1 if kind < CHUNKED_SHARE + ALL_TEXT_SHARE else int(noise.integers(1, LEADS + 1))
    return adaptive(lead, round(ratio, 3))


def special_ids(config: OmniConfig, tokenizer: Any) -> dict[str, int]:
    """The special ids of prompts, by their names in a manifest."""
    assert config.talker is not None
    names = ("im_start", "im_end", "system", "user", "assistant", "tts_pad", "tts_bos", "tts_eos")
    text = {name: getattr(config, f"{name}_token_id") for name in names}
    codec = {"codec_eos": config.talker.codec_eos_token_id}
    for name in (
        "codec_bos",
        "codec_pad",
        "codec_think",
        "codec_nothink",
        "codec_think_bos",
        "codec_think_eos",
    ):
        codec[name] = getattr(config.talker, f"{name}_id")
    return text | codec | {"newline": tokenizer.encode("\n", add_special_tokens=False).ids[0]}


def sequence(
    track: Track,
    text: Sequence[int],
    codes: np.ndarray,
    places: np.ndarray,
    voice_codes: np.ndarray,
    ids: Mapping[str, int],
    content: int,
) -> Rows:
    """The rows of one utterance whose `codes` [frames, groups] speak the tokens of `text` at `places`
    [frames].

    Its prompt has `content` rows of the user's words.
    """
    user = [
        ids["im_start"],
        ids["user"],
        ids["newline"],
        *[ids["tts_pad"]] * content,
        ids["im_end"],
        ids["newline"],
    ]
    prompt = interleaved_prompt(
        user,
        {row: np.zeros(1, np.float32) for row in range(3, 3 + content)},
        1,
        CONTENT_ROWS,
        ids,
        SpeakingStyle(voice_codes),
    )
    start = len(prompt.text_ids)
    fed = np.cumsum(np.array(track.text_ids) != NOTHING)[track.asked]
    ended_places = np.append(places, len(text))
    return Rows(
        text_ids=np.concatenate([prompt.text_ids, track.text_ids]),
        codec_ids=np.concatenate([prompt.codec_ids, np.full(len(track.text_ids), NOTHING)]),
        hidden_index=prompt.hidden_index,
        frames=np.concatenate([prompt.frames, codes]),
        frame_index=np.concatenate([prompt.frame_index, start + np.array(track.frame_rows, np.int64)]),
        asked=start + np.array(track.asked),
        answers=np.append(codes[:, 0], ids["codec_eos"]),
        may_end=np.array(track.may_end),
        spoken=np.append(text, ids["tts_eos"])[ended_places],
        ahead=np.clip(fed - ended_places, 0, MOST_AHEAD - 1),
        targets=codes,
    )


class Speech:
    """Utterances of the Talker's voices as text ids and codes, in batches of similar length."""

    def __init__(
        self,
        corpus: Corpus,
        codes: Sequence[Sequence[np.ndarray]],
        tokenizer: Any,
        ids: Mapping[str, int],
        dual_track: bool = False,
    ) -> None:
        """`codes`: uint8 [frames, groups] of every item, in one or more variations."""
        self.ids, self.dual_track, self.vocabulary = ids, dual_track, tokenizer.get_vocab_size()
        numbers = [number for number, item in enumerate(corpus.items) if item.voice in VOICES]
        self.codes = {
            number: [variation[number].astype(np.int64) for variation in codes] for number in numbers
        }
        self.text = {
            number: tokenizer.encode(corpus.items[number].text, add_special_tokens=False).ids
            for number in numbers
        }
        self.voice = {number: corpus.items[number].voice for number in numbers}
        self.numbers = [number for number in numbers if max(map(len, self.codes[number])) <= LONGEST]
        self.by_voice = {
            voice: [number for number in self.numbers if self.voice[number] == voice] for voice in VOICES
        }
        texts, entries = (
            list(self.text.values()),
            1 + max(int(rows[:, 0].max()) for variation in codes for rows in variation),
        )
        aligner = Aligner(
            texts, [self.codes[number][0][:, 0] for number in numbers], self.vocabulary, entries
        )
        self.places = {
            number: [aligner.spoken(text, rows[:, 0]) for rows in self.codes[number]]
            for number, text in zip(numbers, texts, strict=True)
        }

    def _any(self, number: int, noise: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One of the variations of an item, and the indices into its text of the tokens that its frames
        speak."""
        variation = int(noise.integers(len(self.codes[number])))
        return self.codes[number][variation], self.places[number][variation]

    def example(self, number: int, noise: np.random.Generator) -> Rows:
        """One newly drawn training sequence of an utterance."""
        others = self.by_voice[self.voice[number]]
        other, _ = self._any(others[int(noise.integers(len(others)))], noise)
        length = min(len(other), int(noise.integers(PROMPT_FRAMES[0], PROMPT_FRAMES[1] + 1)))
        start = int(noise.integers(len(other) - length + 1))
        voice_codes, content = other[start : start + length], int(noise.integers(1, CONTENT_ROWS + 1))
        text, (codes, places) = self.text[number], self._any(number, noise)
        end, pad = self.ids["tts_eos"], self.ids["tts_pad"]
        policy = draw_policy(noise, len(text), len(codes))
        track = (
            dual_track(text, len(codes), end, pad)
            if self.dual_track
            else interleaved(text, len(codes), policy, end)
        )
        return sequence(track, text, codes, places, voice_codes, self.ids, content)

    def batches(self, noise: np.random.Generator) -> Iterator[list[Rows]]:
        """Endless batches of about BATCH_ROWS rows, including padding."""
        while True:
            for pool in np.array_split(noise.permutation(self.numbers), max(1, len(self.numbers) // 300)):
                examples = sorted(
                    (self.example(int(number), noise) for number in pool), key=lambda rows: len(rows.text_ids)
                )
                groups: list[list[Rows]] = [[]]
                for rows in examples:
                    if groups[-1] and (len(groups[-1]) + 1) * len(rows.text_ids) > BATCH_ROWS:
                        groups.append([])
                    groups[-1].append(rows)
                for index in noise.permutation(len(groups)):
                    yield groups[index]
