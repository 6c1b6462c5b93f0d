"""The picture of `aria_study`: four panels of bars as one SVG file, written by hand because nothing else here needs a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .aria_study import Outcome

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by colour-blind readers (Okabe and Ito)
WIDTH, HEIGHT = 960, 600
_PANEL_WIDTH, _PANEL_HEIGHT, _TOP = 390, 190, 90


def plot(outcomes: Sequence[Outcome]) -> str:
    """First audio and underruns by Thinker and policy; text lead and broken bounds, which no Thinker changes, by policy. Returns SVG text."""
    traces = list(dict.fromkeys(row.trace for row in outcomes))
    policies = list(dict.fromkeys(row.policy for row in outcomes))
    found = {(row.trace, row.policy): row for row in outcomes}

    def by_trace(measure: str) -> list[list[float]]:
        return [[getattr(found[trace, policy], measure) for policy in policies] for trace in traces]

    def by_policy(measure: str) -> list[list[float]]:
        return [[getattr(found[traces[0], policy], measure)] for policy in policies]

    # a comma begins a new line
    short = [trace.replace(" of 8, ", ", ") for trace in traces]
    folded = [policy.replace(" R=", ", R=") for policy in policies]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        '<text x="20" y="26" font-size="16" font-weight="bold">ARIA: interleaves against Thinkers of several speeds</text>',
        _legend(policies),
        _panel(0, 0, "first audio, ms (median)", short, [[1000 * value for value in group] for group in by_trace("first_audio")]),
        _panel(1, 0, "answers with an underrun, %", short, [[100 * value for value in group] for group in by_trace("items_with_underruns")], 100),
        _panel(0, 1, "longest text lead, tokens (median)", folded, by_policy("lead")),
        _panel(1, 1, "answers that break the published bound, %", folded, [[100 * value for value in group] for group in by_policy("items_over_bound")]),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend(policies: Sequence[str]) -> str:
    entries = []
    for place, policy in enumerate(policies):
        x = 20 + 150 * place
        entries.append(f'<rect x="{x}" y="42" width="12" height="12" fill="{COLOURS[place % len(COLOURS)]}"/><text x="{x + 18}" y="52">{policy}</text>')
    return "\n".join(entries)


def _panel(column: int, row: int, title: str, groups: Sequence[str], values: Sequence[Sequence[float]], most: float | None = None) -> str:
    """Groups of bars over an axis with lines at round numbers. Groups of one bar are coloured as policies."""
    left, top = 60 + column * (_PANEL_WIDTH + 80), _TOP + row * (_PANEL_HEIGHT + 80)
    step = _round_step(most or max(max(group) for group in values) or 1.0)
    ceiling = step * max(1, math.ceil(max(max(group) for group in values) / step - 1e-9)) if most is None else most
    scale = _PANEL_HEIGHT / ceiling
    bottom = top + _PANEL_HEIGHT
    parts = [f'<text x="{left}" y="{top - 10}" font-size="13" font-weight="bold">{title}</text>']
    for line in range(round(ceiling / step) + 1):
        y = bottom - line * step * scale
        parts.append(f'<line x1="{left}" x2="{left + _PANEL_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#{"888888" if line == 0 else "dddddd"}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555555">{line * step:g}</text>')
    room = _PANEL_WIDTH / len(groups)
    for place, (name, group) in enumerate(zip(groups, values, strict=True)):
        width = 0.8 * room / max(len(group), 2)
        start = left + place * room + (room - width * len(group)) / 2
        for number, value in enumerate(group):
            colour = COLOURS[(number if len(group) > 1 else place) % len(COLOURS)]
            x, height = start + number * width, value * scale
            parts.append(f'<rect x="{x:.1f}" y="{bottom - height:.1f}" width="{width - 1:.1f}" height="{height:.1f}" fill="{colour}"/>')
            if len(group) == 1:
                parts.append(f'<text x="{x + width / 2:.1f}" y="{bottom - height - 4:.1f}" text-anchor="middle">{value:.1f}</text>')
        for line, words in enumerate(name.split(", ")):
            parts.append(f'<text x="{left + (place + 0.5) * room:.1f}" y="{bottom + 15 + 13 * line}" text-anchor="middle">{words}</text>')
    return "\n".join(parts)


def _round_step(most: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that fits four to nine times into `most`."""
    power = 10.0 ** math.floor(math.log10(most / 4))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= most / 4)
