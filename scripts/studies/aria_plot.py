"""The figures of `aria_study`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..plot import Bars, bar_plot

if TYPE_CHECKING:
    from .aria_simulation import Outcome
    from .aria_speech import Voiced


def plot(outcomes: Sequence[Outcome]) -> str:
    """First audio and underruns by Thinker and policy; text lead and broken bounds by policy.

    Returns SVG text.

    Lead and bounds do not depend on the Thinker.
    """
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


def plot_speech(said: Sequence[Voiced], outcomes: Sequence[Outcome]) -> str:
    """Word errors and the spread of durations by policy; first audio and underruns by Thinker and policy.

    Returns SVG text.
    """
    shown = [
        voiced
        for voiced in said
        if "lead" not in voiced.policy or voiced.policy.endswith(("lead 1", "lead 4"))
    ]
    spoken = [voiced.policy for voiced in shown if any(row.policy == voiced.policy for row in outcomes)]
    # The synthesiser has no Thinker; it comes last, so that a policy has one colour in all panels.
    shown.sort(key=lambda voiced: voiced.policy not in spoken)
    groups = [voiced.policy.replace("adaptive ", "") for voiced in shown]
    # a comma begins a new line
    folded = [name if ", " in name else name.replace(" ", ", ") for name in groups]
    traces = list(dict.fromkeys(row.trace for row in outcomes))
    found = {(row.trace, row.policy): row for row in outcomes}
    short = [trace.replace(" of 8, ", ", ") for trace in traces]
    panels = [
        Bars("word errors, %", folded, [[100 * voiced.word_errors] for voiced in shown]),
        Bars(
            "spread of the duration against the synthesiser's, %",
            folded,
            [[100 * voiced.rate_spread] for voiced in shown],
        ),
        Bars(
            "first audio, ms (median)",
            short,
            [[1000 * found[trace, name].first_audio for name in spoken] for trace in traces],
        ),
        Bars(
            "answers with an underrun, %",
            short,
            [[100 * found[trace, name].items_with_underruns for name in spoken] for trace in traces],
            100,
        ),
    ]
    return bar_plot("ARIA on real speech", groups[: len(spoken)], panels)
