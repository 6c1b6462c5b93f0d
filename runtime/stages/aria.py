"""ARIA: when text rows and speech frames take turns.

Text is pulled, never pushed: a policy is one function text_rows_before(k), the number of text rows
that must be in before frame k (counted from 1). The frames are a function of text and seed alone,
never of when the text arrived. The op AriaStep takes need as a table of integers and makes the same
decisions row by row on a device.
Source: Qwen3.5-Omni report (arXiv:2604.15804), sections 2.4 and 2.5; dual track: Qwen3-Omni
report (arXiv:2509.17765).
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from ..bundle.errors import InvalidInput
from ..bundle.said import short
from ..bundle.talker_contract import Layout

PENALTY_FRAMES = 64
"""Frames that the repetition penalty looks back under `adaptive`, about five seconds."""
LEAD = 4
"""Text rows before the first frame where nothing else is asked for: those of the shipped model."""
_NUMBER = re.compile(r"\d{1,40}(\.\d{1,40}|/\d{1,40})?")
_COUNT = re.compile(r"\d{1,9}")


@dataclass(frozen=True)
class Policy:
    """An interleave of text rows and frames, and what of the speech the repetition penalty remembers."""

    name: str
    """As `parse_policy` reads it."""
    text_rows_before: Callable[[int], int]
    """text_rows_before(k): text rows that must be in before frame k, counted from 1;
    at least 1, and never falling.
    """
    layout: Layout = "interleaved"
    """Of the Talkers that can follow it (TalkerContract.layout)."""
    end_anywhere: bool = False
    """The Talker may end before its text did (Qwen3-Omni)."""
    penalty_window: int | None = None
    """Frames back to which code 0 counts as repeated; None: the whole answer."""
    penalty_restarts: bool = False
    """Feeding text empties the window: it begins anew at each chunk, and grows once all text is in."""


def dual_track() -> Policy:
    """Qwen3-Omni: text row k is added to the row that frame k is sampled from, padding after the end."""
    return Policy("dual_track", lambda frame: frame, "summed", end_anywhere=True)


def chunked(text_rows: int = 4, frames: int = 4) -> Policy:
    """Qwen3.5-Omni as shipped (4, 4): `text_rows` rows of text, then `frames` frames, and so on."""
    if text_rows < 1 or frames < 1:
        raise InvalidInput(
            f"chunked({text_rows}, {frames}) asks for an empty chunk; expected two counts of at least 1."
        )
    return Policy(
        f"chunked:{text_rows},{frames}", lambda frame: text_rows * -(-frame // frames), penalty_restarts=True
    )


def adaptive(lead: int, frames_per_row: float | Fraction) -> Policy:
    """ARIA as published: at most `frames_per_row` (the ratio R) frames per text row at any prefix,
    and `lead` rows before the first frame.

    A float stands for the decimal number it is printed as.
    """
    ratio = Fraction(0)
    if math.isfinite(frames_per_row):
        ratio = (
            frames_per_row if isinstance(frames_per_row, Fraction) else Fraction(str(float(frames_per_row)))
        )
    if lead < 1 or ratio <= 0:
        raise InvalidInput(
            f"adaptive({lead}, {frames_per_row}) cannot run; "
            "expected a lead of at least 1 and a finite ratio above 0."
        )
    above, below = ratio.as_integer_ratio()
    decimal = str(float(ratio))
    shown = decimal if _NUMBER.fullmatch(decimal) and Fraction(decimal) == ratio else str(ratio)
    return Policy(
        f"adaptive:{shown},{lead}",
        lambda frame: max(lead, -(-frame * below // above)),
        penalty_window=PENALTY_FRAMES,
    )


@dataclass(frozen=True)
class PolicyKind:
    """A kind of policy, by which a name such as `chunked:4,4` is read."""

    layout: Layout
    """Of the Talkers that can follow it."""
    shown: str
    """How it is written, for error sentences."""
    parse: Callable[[list[str] | None, float | Fraction], Policy | None]
    """From the parts behind the colon (None: no colon) and the bundle's ratio R;
    None for parts that it cannot read.
    """


def _parse_dual_track(parts: list[str] | None, frames_per_row: float | Fraction) -> Policy | None:
    return dual_track() if parts is None else None


def _parse_chunked(parts: list[str] | None, frames_per_row: float | Fraction) -> Policy | None:
    if parts is None:
        return chunked()
    return (
        chunked(*map(int, parts))
        if len(parts) == 2 and all(_COUNT.fullmatch(part) for part in parts)
        else None
    )


def _parse_adaptive(parts: list[str] | None, frames_per_row: float | Fraction) -> Policy | None:
    if parts is None:
        return adaptive(LEAD, frames_per_row)
    ratio, lead = parts[0], parts[1] if len(parts) == 2 else str(LEAD)
    is_written = (
        len(parts) <= 2
        and _NUMBER.fullmatch(ratio)
        and _COUNT.fullmatch(lead)
        and not re.search("/0+$", ratio)
    )
    return adaptive(int(lead), Fraction(ratio)) if is_written else None


POLICIES: dict[str, PolicyKind] = {
    "dual_track": PolicyKind("summed", "dual_track", _parse_dual_track),
    "chunked": PolicyKind("interleaved", "chunked:TEXT_ROWS,FRAMES", _parse_chunked),
    "adaptive": PolicyKind("interleaved", "adaptive", _parse_adaptive),
}
"""Every kind of policy by the name that begins it."""


def usable_policies(layout: Layout) -> str:
    """The policies that a Talker of `layout` can follow, for error sentences."""
    return " or ".join(kind.shown for kind in POLICIES.values() if kind.layout == layout)


def parse_policy(text: str, frames_per_row: float | Fraction = 1) -> Policy:
    """The policy that `text` names: `dual_track`, `chunked`, `chunked:4,4`, `adaptive`,
    `adaptive:R` or `adaptive:R,lead`.

    `frames_per_row` is R where the text gives none (a bundle may know it; 1 is safe for all speech with at
    least one frame a token). R is written 3, 2.5 or 5/2. Raises AntiphonError.
    """
    name, colon, rest = text.strip().partition(":")
    parts = [part.strip() for part in rest.split(",")] if colon else None
    found = POLICIES[name].parse(parts, frames_per_row) if name in POLICIES else None
    if found is None:
        known = ", ".join(kind.shown for kind in POLICIES.values())
        raise InvalidInput(
            f"The interleave is {short(text)}, expected {known}, "
            "adaptive:R or adaptive:R,LEAD, as in chunked:4,4."
        )
    return found


def need_table(policy: Policy, frames: int) -> np.ndarray:
    """text_rows_before(1) .. text_rows_before(frames) as int64 [frames], for the op AriaStep.

    Its last value should be above every text's length, or the end never comes in.
    """
    most = int(np.iinfo(np.int64).max)  # a tiny ratio needs more than any text has
    return np.array([min(policy.text_rows_before(frame), most) for frame in range(1, frames + 1)], np.int64)


class PenaltyWindow:
    """Keeps the ids that the repetition penalty is for, `penalised` bool [vocabulary], as a policy wants it:
    changed in place.
    """

    def __init__(self, policy: Policy, penalised: np.ndarray) -> None:
        self._restarts, self._size, self._penalised = (
            policy.penalty_restarts,
            policy.penalty_window,
            penalised,
        )
        self._recent: deque[int] = deque()

    def fed_text(self) -> None:
        """Text rows go in: call it before the frame behind them is sampled."""
        if self._restarts:
            self._penalised[:] = False
            self._recent.clear()

    def add(self, code0: int) -> None:
        """A frame was sampled that begins with `code0`."""
        self._penalised[code0] = True
        if self._size is None:
            return
        self._recent.append(code0)
        if len(self._recent) > self._size:
            oldest = self._recent.popleft()
            self._penalised[oldest] = oldest in self._recent


class TextRows(Protocol):
    """The text of an answer as the schedule reads it."""

    def next(self) -> int | None:
        """The next text id, waiting for it; None once the text has ended."""


class FrameSource(Protocol):
    """The Talker with its code predictor, seen from the schedule."""

    def step(self, text_ids: list[int], may_end: bool) -> np.ndarray | None:
        """Feed the last frame's row and the pending text rows (dual track: their sum), and sample a frame:
        codes [groups], or None when the Talker ended or has no room.
        """


@dataclass(frozen=True)
class Frame:
    """One codec frame: `index` from 0, `codes` int64 [groups],
    `cursor` = text tokens the schedule had consumed.
    """

    index: int
    codes: np.ndarray
    cursor: int


def speak(
    policy: Policy, text: TextRows, talker: FrameSource, end_id: int, budget: Callable[[int], int]
) -> Iterator[Frame]:
    """Pull text as the policy needs it and yield frames until the Talker ends.

    `end_id` is the text id fed once after the last token (tts_eos). `budget` gives the frames allowed for the
    text tokens known so far; the iterator ends there without asking the Talker again. A text of no tokens
    gives no frames. Only the Talker knows which end it was.
    """
    frames = cursor = 0
    ended = False
    pending: list[int] = []
    while True:
        # after the end no row is pulled: the Talker feeds padding by itself where its
        # policy wants a row per frame
        while not ended and cursor < policy.text_rows_before(frames + 1):
            token = text.next()
            if token is None:
                ended = True
                if cursor == 0:
                    return
                pending.append(end_id)
            else:
                cursor += 1
                pending.append(token)
        if frames >= budget(cursor):
            return
        codes = talker.step(pending, ended or policy.end_anywhere)
        if codes is None:
            return
        pending = []
        yield Frame(frames, codes, cursor)
        frames += 1


def spoken_text(
    frame: int,
    consumed: int,
    total_frames: int | None = None,
    total_text: int | None = None,
    frames_per_token: float | None = None,
) -> int:
    """Text tokens spoken when frame `frame` (from 0) has been heard,
    of the `consumed` ones that the schedule had fed before it.

    Text leads speech, so `consumed` alone says too much. After the answer its totals are known,
    `total_frames` and `total_text` (the tokens fed in all): tokens are then spread evenly over the frames,
    and the last frame names them all, also those fed behind it, before the Talker ended. While it lasts
    `frames_per_token`, an estimate, does the same. Never falls from frame to frame. Raises AntiphonError.
    """
    if total_frames is not None and total_text is not None:
        if frame + 1 >= total_frames:
            return total_text
        return min(consumed, -(-total_text * (frame + 1) // total_frames))
    if frames_per_token is None:
        return consumed
    if not frames_per_token > 0:
        raise InvalidInput(f"frames_per_token is {short(frames_per_token)}, expected a number above 0.")
    return min(consumed, math.ceil((frame + 1) / frames_per_token))


def bound_violations(cursors: Sequence[int], total_text: int, total_frames: int) -> int:
    """How many prefixes of an interleave break the published bound:
    n_s frames to n_t text rows, n_s * N_t <= n_t * N_s.

    `cursors` holds n_t at each frame; only prefixes that end with a frame can break it. `total_text` N_t and
    `total_frames` N_s are the item's own.
    """
    return sum(
        spoken * total_text > consumed * total_frames for spoken, consumed in enumerate(cursors, start=1)
    )
