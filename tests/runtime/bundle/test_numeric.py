from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.numeric import as_float, number, whole

pytestmark = pytest.mark.filterwarnings("error")
WIDTHS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@given(st.integers(0, 127), st.sampled_from([int, *WIDTHS]))
def test_integers_of_every_width_become_python_integers(value: int, kind: Any) -> None:
    found = whole(kind(value), "n", 0)
    assert type(found) is int and found == value


@given(
    st.integers(1, 1600).map(lambda sixteenths: sixteenths / 16),
    st.sampled_from([float, np.float16, np.float32, np.float64, np.longdouble]),
)
def test_floats_of_every_width_become_python_floats(value: float, kind: Any) -> None:
    found = number(kind(value), "x", 0.001, 100)
    assert type(found) is float and np.float16(found) == np.float16(value)


def test_float32_is_the_decimal_number_that_it_prints_as() -> None:
    assert as_float(np.float32(0.1)) == 0.1 and as_float(Fraction(1, 4)) == 0.25


@pytest.mark.parametrize(
    "value",
    [
        True,
        np.bool_(True),
        2.0,
        np.float32(2),
        "2",
        None,
        [2],
        np.array(2.0),
        float("nan"),
        -1,
        11,
        10**400,
        2 + 0j,
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_integer_in_the_range_is_refused(value: Any) -> None:
    with pytest.raises(AntiphonError, match="^n is .*, expected an integer from 0 to 10 frames[.]$"):
        whole(value, "n", 0, 10, of="frames")


HUGE = [
    10**400,
    -(10**400),
    np.longdouble("1e400"),
    float("inf"),
    float("-inf"),
    float("nan"),
    np.float32("inf"),
    np.float16("nan"),
    1e308,
    1e-45,
]


@pytest.mark.parametrize(
    "value",
    [True, np.bool_(True), "2", None, [2], np.array(2.0), -1, 2j, *HUGE],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_number_in_the_range_is_refused(value: Any) -> None:
    with pytest.raises(
        AntiphonError, match="^x is .*, expected a number from 0.001 to 1,000 frames a second[.]$"
    ):
        number(value, "x", 1e-3, 1e3, of="frames a second")


def test_zero_may_be_a_switch() -> None:
    assert number(np.float32(0), "x", 1, 2, or_zero=True) == 0
    with pytest.raises(AntiphonError, match="x is 0.5, expected 0 or a number from 1 to 2"):
        number(0.5, "x", 1, 2, or_zero=True)
