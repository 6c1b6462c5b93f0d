"""The ARIA cursor against the truth: how many words it says were begun at the end of each frame, and how many were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from ...runtime.stages.aria import Policy, spoken_text
from .normaliser import normalise, word_errors
from .recognisers import Word
from .synthesisers import Alignment

MERGED = 3
"""Most words that a synthesiser runs together."""
CONSONANTS = dict(zip("bcdfgjklmnpqrstvwxzðθɹɾŋʃʒɡ", "bkdfgjklmnpkrstvwksttrtnsjg", strict=True)) | {"ɚ": "r", "ɝ": "r"}
"""Letters and sounds that stand for each other."""


@dataclass(frozen=True)
class Schedule:
    """How a bundle takes turns: its policy, `frame_seconds`, and the frames per token by which the cursor is refined while the answer lasts, or None."""

    policy: Policy
    frame_seconds: float
    frames_per_token: float | None


def cursor_errors(schedule: Schedule, starts: Sequence[float], words_at: Sequence[int], frames: int) -> tuple[list[int], list[int]]:
    """Errors in words at the end of every frame of an answer of `frames` frames, of (the estimate that `truncate` takes afterwards, that of AudioDelta).

    `starts`: seconds at which each word begins, ascending. `words_at[n]`: words begun by the first n tokens, n from 0 to all tokens.
    """
    tokens = len(words_at) - 1
    after, live = [], []
    for frame in range(frames):
        begun = sum(start < (frame + 1) * schedule.frame_seconds for start in starts)
        consumed = min(schedule.policy.text_rows_before(frame + 1), tokens)
        after.append(abs(words_at[spoken_text(frame, consumed, frames, tokens)] - begun))
        live.append(abs(words_at[min(tokens, spoken_text(frame, consumed, frames_per_token=schedule.frames_per_token))] - begun))
    return after, live


def words_by_token(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """Words begun by the first n of the tokens `ids`, for n from 0 to all of them; never falling."""
    counts = [0]
    for tokens in range(1, len(ids) + 1):
        counts.append(max(counts[-1], len(normalise(decode(ids[:tokens])).split())))
    return counts


def aligned_starts(alignment: Alignment, text: str) -> list[float] | None:
    """Seconds at which the words of `text` begin; None where the synthesiser's groups are no words of it.

    Words that a synthesiser runs together ("there was") share its time by their letters; which do is found by comparing consonants.
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
    """Seconds at which the words of `text` begin, as a recogniser heard them; None where it heard others. Words of one mark ("21") share its time."""
    starts: list[float] = []
    said: list[str] = []
    for word in words:
        parts = normalise(word.text).split()
        starts += [word.start + (word.end - word.start) * part / len(parts) for part in range(len(parts))]
        said += parts
    return starts if said == normalise(text).split() else None


def _consonants(text: str) -> str:
    """Those of a word in letters or sounds, separated by spaces."""
    return " ".join(CONSONANTS[mark] for mark in text if mark in CONSONANTS)


def _split(groups: Sequence[str], words: Sequence[str]) -> tuple[int, ...] | None:
    """How many words each group holds, so that consonants differ least; None where it cannot be."""

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
