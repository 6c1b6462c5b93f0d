"""Pictures as SVG: what was given is in them, and nothing stands outside."""

from __future__ import annotations

import xml.etree.ElementTree as xml

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.scripts.plot import Bars, Line, bar_plot, line_plot

VALUES = st.floats(1e-6, 1e12) | st.just(0.0)


def elements(picture: str, tag: str) -> list[xml.Element]:
    return [element for element in xml.fromstring(picture).iter() if element.tag.endswith(f"}}{tag}")]


def texts(picture: str) -> list[str | None]:
    return [element.text for element in elements(picture, "text")]


def points(line: xml.Element) -> np.ndarray:
    return np.array([[float(number) for number in pair.split(",")] for pair in line.attrib["points"].split()])


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=9))
def test_lines_keep_their_proportions_and_stay_inside(values: list[tuple[float, float]]) -> None:
    picture = line_plot([("seconds", [Line("measured", values)])], "tokens")
    _, _, width, height = (float(size) for size in xml.fromstring(picture).attrib["viewBox"].split())
    (line,) = elements(picture, "polyline")
    places = points(line)
    assert (places >= 0).all() and (places <= [width, height]).all()
    given_points = np.array(values)
    for axis, origin, sign in ((0, 60, 1), (1, 250, -1)):
        distances, most = sign * (places[:, axis] - origin), given_points[:, axis].max()
        np.testing.assert_allclose(
            distances, (given_points[:, axis] / most if most else 0) * distances.max(), atol=0.15
        )


def test_panels_have_their_lines_and_labels() -> None:
    panels = [
        ("memory, MB", [Line("measured", [(1, 2), (3, 4)]), Line("formula", [(1, 1), (3, 3)])]),
        ("a < b", [Line("", [(1, 5)])]),
    ]
    picture = line_plot(panels, "tokens of context")
    assert len(elements(picture, "polyline")) == 3 and len(elements(picture, "circle")) == 5
    assert {"memory, MB", "a < b", "measured", "formula", "tokens of context"} <= set(texts(picture))
    colours = [line.attrib["stroke"] for line in elements(picture, "polyline")]
    assert colours[0] != colours[1] and colours[0] == colours[2]


@pytest.mark.parametrize(("most", "last"), [(262_144, "300k"), (0.9, "1"), (7, "7"), (0, "1")])
def test_the_scale_ends_with_a_round_number_at_or_above_the_largest(most: float, last: str) -> None:
    picture = line_plot([("y", [Line("", [(1, most)])])], "x")
    labels = [
        element.text for element in elements(picture, "text") if element.attrib.get("text-anchor") == "end"
    ]
    assert labels[0] == "0" and labels[-1] == last
    assert 5 <= len(labels) <= 11


def test_bars_are_grouped_and_named() -> None:
    panels = [
        Bars("time", ["a, b", "c"], [[1.0, 2.0], [3.0, 4.0]]),
        Bars("share, %", ["p", "q"], [[30.0], [60.0]], most=100),
    ]
    picture = bar_plot("Figures", ["p", "q"], panels)
    assert len(elements(picture, "rect")) == 1 + 2 + 4 + 2  # ground, legend, bars
    assert {"Figures", "time", "share, %", "a", "b", "c", "30.0", "60.0", "100"} <= set(texts(picture))
    highs = [float(bar.attrib["height"]) for bar in elements(picture, "rect")[-2:]]
    assert highs == [57.0, 114.0]  # of 190 for 100 %
