"""Small line plots as SVG, for the figures in docs/: panels side by side, one vertical axis each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 300, 64, 16, 34, 48
COLOURS = ("#1f5fa8", "#c2571a", "#2d7d46", "#7a3f98", "#555555")


@dataclass(frozen=True)
class Line:
    """A named line through `points` (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


def write_plot(path: Path, panels: Sequence[tuple[str, Sequence[Line]]], x_label: str) -> None:
    """Write one panel for each (label of its vertical axis, its lines), all from zero."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH * len(panels)}" height="{HEIGHT}" fill="white"/>',
    ]
    for number, (label, lines) in enumerate(panels):
        parts += [f'<g transform="translate({WIDTH * number},0)">', *_panel(label, lines, x_label), "</g>"]
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _panel(label: str, lines: Sequence[Line], x_label: str) -> list[str]:
    points = [point for line in lines for point in line.points]
    most_x, most_y = (_round_up(max((point[axis] for point in points), default=1.0)) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / most_x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / most_y * (HEIGHT - TOP - BOTTOM)

    parts = []
    for step in range(5):
        (x, bottom), (left, y) = place(most_x * step / 4, 0), place(0, most_y * step / 4)
        parts += [
            f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>',
            f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_number(most_y * step / 4)}</text>',
            f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{_number(most_x * step / 4)}</text>',
        ]
    parts.append(f'<text x="{LEFT - 6}" y="{TOP - 14}" text-anchor="end">{escape(label)}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    for line, colour in zip(lines, COLOURS, strict=False):
        places = [place(x, y) for x, y in line.points]
        parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    x = LEFT + 8
    for line, colour in zip(lines, COLOURS, strict=False):
        parts.append(f'<text x="{x}" y="{TOP - 14}" fill="{colour}">{escape(line.name)}</text>')
        x += 9 * len(line.name) + 12
    return parts


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 8, 10 times a power of ten: axes end at numbers that divide by four legibly."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (len(f"{value:.0f}") - 1) if value >= 1 else 10.0 ** -len(f"{1 / value:.0f}")
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 2.8, 3.2, 4, 5, 6, 8, 10, 12) if step * power >= value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.2g}"
