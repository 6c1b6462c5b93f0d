"""Errors of the ARIA cursor: words reported as begun after each frame, against words that have begun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from ...runtime.stages.aria import Policy, spoken_text
from .normaliser import normalise, word_errors
from .recognisers import Word
from .synthesisers import Alignment

MERGED = 3
"""The most words that a synthesiser joins into one group."""
CONSONANTS = dict(zip("bcdfgjklmnpqrstvwxzðθɹɾŋʃʒɡ", "bkdfgjklmnpkrstvwksttrtnsjg", strict=True)) | {
    "ɚ": "r",
    "ɝ": "r",
}
"""Maps letters and sounds of similar consonants to one symbol."""


@dataclass(frozen=True)
class Schedule:
    """A bundle's interleaving policy, `frame_seconds`, and the frames per token (or None) that refine the
    live cursor."""

    policy: Policy
    frame_seconds: float
    frames_per_token: float | None


def cursor_errors(
    schedule: Schedule, starts: Sequence[float], words_at: Sequence[int], frames: int
) -> tuple[list[int], list[int]]:
    """Errors in words at the end of every frame of an answer of `frames` frames, for two estimates.

    The first is the estimate that `truncate` uses after the answer, the second is that of AudioDelta.
    `starts`: seconds at which each word begins, ascending. `words_at[n]`: words begun by the first n tokens,
    n from 0 to all tokens.
    """
    tokens = len(words_at) - 1
    after, live = [], []
    for frame in range(frames):
        begun = sum(start < (frame + 1) * schedule.frame_seconds for start in starts)
        consumed = min(schedule.policy.text_rows_before(frame + 1), tokens)
        after.append(abs(words_at[spoken_text(frame, consumed, frames, tokens)] - begun))
        live.append(
            abs(
                words_at[
                    min(tokens, spoken_text(frame, consumed, frames_per_token=schedule.frames_per_token))
                ]
                - begun
            )
        )
    return after, live


def words_by_token(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """The number of words begun by the first n of the tokens `ids`, for n from 0 to all; never decreasing."""
    counts = [0]
    for tokens in range(1, len(ids) + 1):
        counts.append(max(counts[-1], len(normalise(decode(ids[:tokens])).split())))
    return counts


def aligned_starts(alignment: Alignment, text: str) -> list[float] | None:
    """The seconds at which the words of `text` begin; None if the synthesiser's groups do not match its
    words.

    Words that a synthesiser joins ("there was") share the time of their group by their letters. A comparison
    of consonants decides which words are joined.
    """
    groups = [group for sentence in alignment.sentences for group in sentence]
    words = normalise(text).split()
    sizes = _split([_consonants(phonemes) for phonemes, _ in groups], words)
    if sizes is None:
        return None
    ends = [start for _, start in groups[1:]] + [alignment.seconds]
    starts, place = [], 0
    for (_, start), end, size in zip(groups, ends, sizes, strict=True):
        letters = [len(word) for word in words[place : place + size]]
        starts += [start + (end - start) * sum(letters[:part]) / sum(letters) for part in range(size)]
        place += size
    return starts


def heard_starts(words: Sequence[Word], text: str) -> list[float] | None:
    """The seconds at which the words of `text` begin in a recogniser's transcript; None if the transcript
    differs.

    Words of one written token ("21") share its time.
    """
    starts: list[float] = []
    said: list[str] = []
    for word in words:
        parts = normalise(word.text).split()
        starts += [word.start + (word.end - word.start) * part / len(parts) for part in range(len(parts))]
        said += parts
    return starts if said == normalise(text).split() else None


def _consonants(text: str) -> str:
    """The consonants of a word in letters or sounds, separated by spaces."""
    return " ".join(CONSONANTS[mark] for mark in text if mark in CONSONANTS)


def _split(groups: Sequence[str], words: Sequence[str]) -> tuple[int, ...] | None:
    """The number of words in each group that makes the consonants differ least; None if there is no
    solution."""

    @cache
    def best(group: int, word: int) -> tuple[int, tuple[int, ...]] | None:
        if group == len(groups):
            return (0, ()) if word == len(words) else None
        ways = []
        for size in range(1, min(MERGED, len(words) - word) + 1):
            rest = best(group + 1, word + size)
            if rest is not None:
                cost = word_errors(groups[group], _consonants("".join(words[word : word + size])), str).errors
                ways.append((cost + rest[0], (size, *rest[1])))
        return min(ways, default=None)

    chosen = best(0, 0)
    return None if chosen is None else chosen[1]
