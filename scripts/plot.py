"""The figures of docs/ as SVG text, without a plotting library: panels of lines, and panels of bars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

# Distinguishable by colour-blind readers (Okabe and Ito, and a grey).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666")
_LINES_WIDTH, _LINES_HEIGHT = 240, 190
_BARS_WIDTH, _BARS_HEIGHT = 390, 190


@dataclass(frozen=True)
class Line:
    """A line through `points` (x, y); a non-empty `name` is written above it."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bars:
    """Groups of bars: `values` of each of `groups`. A comma in a group's name starts a new line.

    Groups of one bar are coloured by group. `most` is the end of the axis if the values do not decide it.
    """

    title: str
    groups: Sequence[str]
    values: Sequence[Sequence[float]]
    most: float | None = None


def line_plot(panels: Sequence[tuple[str, Sequence[Line]]], x_label: str) -> str:
    """SVG text: panels side by side, each (label of its vertical axis, its lines). All axes start at 0."""
    parts: list[str] = []
    for number, (label, lines) in enumerate(panels):
        parts += _line_panel(60 + number * (_LINES_WIDTH + 80), 60, label, lines, x_label)
    return _document((_LINES_WIDTH + 80) * len(panels) + 10, _LINES_HEIGHT + 120, parts)


def bar_plot(title: str, series: Sequence[str], panels: Sequence[Bars]) -> str:
    """SVG text: `panels` two by two under a title and a legend of `series`,
    the bars of a group in this order.
    """
    parts = [f'<text x="20" y="26" font-size="16" font-weight="bold">{escape(title)}</text>']
    for place, name in enumerate(series):
        x = 20 + 150 * place
        parts.append(
            f'<rect x="{x}" y="42" width="12" height="12" fill="{COLOURS[place % len(COLOURS)]}"/><text '
            f'x="{x + 18}" y="52">{escape(name)}</text>'
        )
    for number, panel in enumerate(panels):
        row, column = divmod(number, 2)
        parts += _bar_panel(60 + column * (_BARS_WIDTH + 80), 90 + row * (_BARS_HEIGHT + 80), panel)
    return _document(960, 60 + (_BARS_HEIGHT + 80) * -(-len(panels) // 2), parts)


def _line_panel(left: int, top: int, label: str, lines: Sequence[Line], x_label: str) -> Iterator[str]:
    points = [point for line in lines for point in line.points]
    steps = [_round_step(max(point[axis] for point in points)) for axis in (0, 1)]
    ends = [_ceiling(max(point[axis] for point in points), step) for axis, step in enumerate(steps)]
    bottom = top + _LINES_HEIGHT
    yield f'<text x="{left}" y="{top - 30}" font-size="13" font-weight="bold">{escape(label)}</text>'
    yield from _scale(left, top, _LINES_WIDTH, _LINES_HEIGHT, ends[1], steps[1])
    for mark in range(0, round(ends[0] / steps[0]) + 1, 2):
        x = left + mark * steps[0] / ends[0] * _LINES_WIDTH
        yield (
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" '
            f'fill="#555555">{_number(mark * steps[0])}</text>'
        )
    yield (
        f'<text x="{left + _LINES_WIDTH / 2:.1f}" y="{bottom + 36}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
    )
    legend = left
    for line, colour in zip(lines, COLOURS, strict=False):
        places = [
            (left + x / ends[0] * _LINES_WIDTH, bottom - y / ends[1] * _LINES_HEIGHT) for x, y in line.points
        ]
        yield (
            f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}" fill="none" '
            f'stroke="{colour}" stroke-width="2"/>'
        )
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places)
        if line.name:
            yield f'<text x="{legend}" y="{top - 12}" fill="{colour}">{escape(line.name)}</text>'
            legend += 7 * len(line.name) + 16


def _bar_panel(left: int, top: int, panel: Bars) -> Iterator[str]:
    most = max(max(group) for group in panel.values)
    step = _round_step(panel.most or most)
    ceiling = panel.most or _ceiling(most, step)
    scale, bottom = _BARS_HEIGHT / ceiling, top + _BARS_HEIGHT
    yield f'<text x="{left}" y="{top - 10}" font-size="13" font-weight="bold">{escape(panel.title)}</text>'
    yield from _scale(left, top, _BARS_WIDTH, _BARS_HEIGHT, ceiling, step)
    room = _BARS_WIDTH / len(panel.groups)
    for place, (name, group) in enumerate(zip(panel.groups, panel.values, strict=True)):
        width = 0.8 * room / max(len(group), 2)
        start = left + place * room + (room - width * len(group)) / 2
        for number, value in enumerate(group):
            colour = COLOURS[(number if len(group) > 1 else place) % len(COLOURS)]
            x, height = start + number * width, value * scale
            yield (
                f'<rect x="{x:.1f}" y="{bottom - height:.1f}" width="{width - 1:.1f}" '
                f'height="{height:.1f}" fill="{colour}"/>'
            )
            if len(group) == 1:
                yield (
                    f'<text x="{x + width / 2:.1f}" y="{bottom - height - 4:.1f}" '
                    f'text-anchor="middle">{value:.1f}</text>'
                )
        for line, words in enumerate(name.split(", ")):
            yield (
                f'<text x="{left + (place + 0.5) * room:.1f}" y="{bottom + 15 + 13 * line}" '
                f'text-anchor="middle">{escape(words)}</text>'
            )


def _scale(left: int, top: int, width: int, height: int, end: float, step: float) -> Iterator[str]:
    """Horizontal lines at multiples of `step` from 0 to `end`, with their values."""
    for mark in range(round(end / step) + 1):
        y = top + height - mark * step * height / end
        yield (
            f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="#{"888888" if mark == 0 else "dddddd"}"/>'
        )
        yield (
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" '
            f'fill="#555555">{_number(mark * step)}</text>'
        )


def _round_step(most: float) -> float:
    """A step of 1, 2 or 5 times a power of ten that fits four to nine times into `most` (0 counts as 1)."""
    power = 10.0 ** math.floor(math.log10((most or 1.0) / 4))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= (most or 1.0) / 4)


def _ceiling(most: float, step: float) -> float:
    """The smallest multiple of `step` that is at least `most` (0 counts as 1)."""
    return step * math.ceil((most or 1.0) / step - 1e-9)


def _number(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def _document(width: int, height: int, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">'
    )
    return (
        "\n".join([head, f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *parts, "</svg>"])
        + "\n"
    )
