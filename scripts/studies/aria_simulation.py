"""A simulation of text and speech interleaving: the loop of runtime.stages.aria in simulated time.

An item is an answer: its tokens of text, and the frames of its speech. `runtime.stages.aria.speak` runs on
every item, with a Talker that ends at the item's length, or as soon afterwards as it may. The Thinker's trace
gives the arrival time of each token, and every frame takes the same time. Playback begins with the first
frame at 80 ms per frame. It pauses if the next frame is missing, which is an underrun.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ...runtime.stages.aria import LEAD, Policy, adaptive, bound_violations, chunked, dual_track, speak

FRAME_SECONDS = 0.08
TRACES = ("8 tok/s", "12.5 tok/s", "30 tok/s", "75 tok/s", "bursts of 8, 30 tok/s", "stalls, 30 tok/s")


@dataclass(frozen=True)
class Item:
    """An answer: tokens of text, and the natural number of frames of its speech."""

    tokens: int
    frames: int


@dataclass(frozen=True)
class Told:
    """The result of one item.

    Times are in seconds, `lead` in tokens; `over` counts prefixes that break the published bound.
    """

    first_audio: float
    underruns: int
    pause: float
    lead: float
    frames: int
    over: int


@dataclass(frozen=True)
class Outcome:
    """One row of the study: medians over the items for `first_audio` and `lead`, means for `underruns` and
    `pause`, shares 0 to 1."""

    trace: str
    policy: str
    first_audio: float
    underruns: float
    items_with_underruns: float
    pause: float
    lead: float
    items_over_bound: float
    prefixes_over_bound: float


@dataclass(frozen=True)
class BoundOutcome:
    """The published bound with R = `ratio`, the `quantile` of frames per token.

    Shares are 0 to 1; `of_safe_items` is the share of items with N_s / N_t >= R.
    """

    quantile: float
    ratio: float
    unsafe_items: float
    items_over_bound: float
    prefixes_over_bound: float
    of_safe_items: float


def draw_items(count: int, seed: int) -> list[Item]:
    """Draw `count` answers.

    Tokens follow a log-normal distribution with median 40, clipped to 1 to 400. Natural frames per token
    follow one with median 3.5. Its spread combines 0.2 for the voice and 0.5 / sqrt(tokens) for the text, so
    that short answers vary more.
    """
    noise = np.random.default_rng(seed)
    items = []
    for _ in range(count):
        tokens = int(np.clip(round(40 * np.exp(noise.normal(0, 0.9))), 1, 400))
        spread = np.hypot(0.2, 0.5 / np.sqrt(tokens))
        items.append(Item(tokens, max(1, round(tokens * 3.5 * np.exp(noise.normal(0, spread))))))
    return items


def low_ratio(items: Sequence[Item], quantile: float = 0.05) -> float:
    """A low quantile of frames per token, rounded down to two places: the R of `adaptive`."""
    return float(np.floor(100 * np.quantile([item.frames / item.tokens for item in items], quantile)) / 100)


def policies(ratio: float, lead: int = LEAD) -> dict[str, Policy]:
    """The compared interleaves, by their names in the table."""
    return {
        "dual track": dual_track(),
        "fixed 1:3": chunked(1, 3),
        "chunked 4:4": chunked(4, 4),
        f"adaptive R={ratio:g}": adaptive(lead, ratio),
        "adaptive R=1": adaptive(lead, 1),
    }


def arrivals(trace: str, tokens: int, seed: int) -> np.ndarray:
    """Seconds, float64 [tokens], from the prompt to the arrival of each token."""
    if trace.startswith("bursts"):
        return np.minimum((np.arange(tokens) // 8 + 1) * 8, tokens) / 30
    times = (np.arange(tokens) + 1) / float(trace.split(" tok/s")[0].split()[-1])
    if trace.startswith("stalls"):  # about one token in forty precedes a pause of one to three seconds
        noise = np.random.default_rng(seed)
        pauses = np.where(noise.random(tokens) < 1 / 40, noise.uniform(1, 3, tokens), 0.0)
        times[1:] += np.cumsum(pauses)[:-1]
    return times


class _Simulation:
    """Text source and Talker with one clock."""

    def __init__(self, item: Item, times: np.ndarray, frame_seconds: float) -> None:
        self.item, self.times, self.frame_seconds = item, times, frame_seconds
        self.clock, self.given, self.frames = 0.0, 0, 0

    def next(self) -> int | None:
        if self.given == self.item.tokens:
            return None
        self.clock = max(self.clock, self.times[self.given])
        self.given += 1
        return self.given - 1

    def step(self, text_ids: list[int], may_end: bool) -> np.ndarray | None:
        if may_end and self.frames >= self.item.frames:
            return None
        self.clock += self.frame_seconds
        self.frames += 1
        return np.zeros(0, np.int64)


def tell(item: Item, policy: Policy, times: np.ndarray, frame_seconds: float) -> Told:
    """Simulate the speech and the playback of one item."""
    simulation = _Simulation(item, times, frame_seconds)
    cursors: list[int] = []
    first_audio = pause = lead = due = 0.0
    underruns = 0
    for frame in speak(policy, simulation, simulation, -1, lambda _: 100_000):
        if not cursors:
            first_audio = due = simulation.clock
        elif simulation.clock > due + 1e-9:
            underruns += 1
            pause += simulation.clock - due
            due = simulation.clock
        due += FRAME_SECONDS  # when the frame after this one is due
        cursors.append(frame.cursor)
        lead = max(lead, frame.cursor - item.tokens * min(1.0, frame.index / item.frames))
    return Told(
        first_audio, underruns, pause, lead, len(cursors), bound_violations(cursors, item.tokens, item.frames)
    )


def study(
    items: Sequence[Item] | Mapping[str, Sequence[Item]],
    named: Mapping[str, Policy],
    frame_seconds: float,
    seed: int = 0,
) -> list[Outcome]:
    """The outcome of every trace with every policy; `items` are shared by all policies, or given per policy
    name."""
    of = items if isinstance(items, Mapping) else dict.fromkeys(named, items)
    return [
        _outcome(trace, name, list(_told(of[name], policy, trace, frame_seconds, seed)))
        for trace in TRACES
        for name, policy in named.items()
    ]


def study_bound(items: Sequence[Item], quantile: float, ratio: float, lead: int = LEAD) -> BoundOutcome:
    """The published bound under `adaptive` with this R; it does not depend on the Thinker."""
    told = list(_told(items, adaptive(lead, ratio), TRACES[0], FRAME_SECONDS, 0))
    exact = Fraction(str(ratio))
    is_safe = [Fraction(item.frames, item.tokens) >= exact for item in items]
    safe_over = [one.over > 0 for one, safe in zip(told, is_safe, strict=True) if safe]
    return BoundOutcome(
        quantile,
        ratio,
        unsafe_items=statistics.fmean(not safe for safe in is_safe),
        items_over_bound=statistics.fmean(one.over > 0 for one in told),
        prefixes_over_bound=sum(one.over for one in told) / sum(one.frames for one in told),
        of_safe_items=statistics.fmean(safe_over) if safe_over else 0.0,
    )


def _told(
    items: Sequence[Item], policy: Policy, trace: str, frame_seconds: float, seed: int
) -> Iterator[Told]:
    for number, item in enumerate(items):
        # The same stalls for every policy.
        yield tell(item, policy, arrivals(trace, item.tokens, seed * 1_000_003 + number), frame_seconds)


def _outcome(trace: str, policy: str, told: Sequence[Told]) -> Outcome:
    return Outcome(
        trace,
        policy,
        first_audio=statistics.median(one.first_audio for one in told),
        underruns=statistics.fmean(one.underruns for one in told),
        items_with_underruns=statistics.fmean(one.underruns > 0 for one in told),
        pause=statistics.fmean(one.pause for one in told),
        lead=statistics.median(one.lead for one in told),
        items_over_bound=statistics.fmean(one.over > 0 for one in told),
        prefixes_over_bound=sum(one.over for one in told) / sum(one.frames for one in told),
    )
