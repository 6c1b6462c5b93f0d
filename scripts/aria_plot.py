"""The picture of `aria_study`: which of its figures are shown, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .plot import Bars, bar_plot

if TYPE_CHECKING:
    from .aria_study import Outcome


def plot(outcomes: Sequence[Outcome]) -> str:
    """First audio and underruns by Thinker and policy; text lead and broken bounds, which no Thinker changes, by policy. Returns SVG text."""
    traces = list(dict.fromkeys(row.trace for row in outcomes))
    policies = list(dict.fromkeys(row.policy for row in outcomes))
    found = {(row.trace, row.policy): row for row in outcomes}

    def by_trace(measure: str, scale: float) -> list[list[float]]:
        return [[scale * getattr(found[trace, policy], measure) for policy in policies] for trace in traces]

    def by_policy(measure: str, scale: float = 1) -> list[list[float]]:
        return [[scale * getattr(found[traces[0], policy], measure)] for policy in policies]

    # a comma begins a new line
    short = [trace.replace(" of 8, ", ", ") for trace in traces]
    folded = [policy.replace(" R=", ", R=") for policy in policies]
    panels = [
        Bars("first audio, ms (median)", short, by_trace("first_audio", 1000)),
        Bars("answers with an underrun, %", short, by_trace("items_with_underruns", 100), 100),
        Bars("longest text lead, tokens (median)", folded, by_policy("lead")),
        Bars("answers that break the published bound, %", folded, by_policy("items_over_bound", 100)),
    ]
    return bar_plot("ARIA: interleaves against Thinkers of several speeds", policies, panels)
