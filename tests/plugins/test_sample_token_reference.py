from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.plugins.sample_token.reference import sample_token
from antiphon.runtime.bundle.sampling import SamplingParameters
from antiphon.runtime.stages.noise import uniform

VOCABULARY = 12


def draw(
    logits,
    noise,
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    repetition_penalty=1.0,
    penalised=(),
    suppressed=(),
    dtype=np.float64,
):
    """The ids that one row of logits gives for every number in `noise`."""
    noise = np.atleast_1d(np.asarray(noise, np.float32))
    rows = len(noise)
    masks = []
    for ids in (penalised, suppressed):
        masks.append(np.zeros((rows, len(logits)), bool))
        masks[-1][:, list(ids)] = True
    parameters = SamplingParameters(temperature, top_k, top_p, repetition_penalty).feeds(rows)
    return sample_token(np.tile(np.asarray(logits, dtype), (rows, 1)), noise, *parameters.values(), *masks)


def shares(*arguments, **options) -> np.ndarray:
    """How often each id is drawn over an even grid of noise: the distribution that is sampled."""
    grid = (np.arange(20000) + 0.5) / 20000
    return np.bincount(draw(*arguments, grid, **options), minlength=len(arguments[0])) / 20000


def softmax(logits):
    weights = np.exp(np.asarray(logits) - np.max(logits))
    return weights / weights.sum()


LOGITS = [1.0, 3.0, -0.5, 2.0, 0.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_ids_are_drawn_by_their_probability(temperature):
    assert np.allclose(
        shares(LOGITS, temperature=temperature), softmax(np.array(LOGITS) / temperature), atol=1e-4
    )


def test_temperature_zero_takes_the_first_of_the_largest():
    assert draw([1, 5, 5, 0], [0.0, 0.99], temperature=0).tolist() == [1, 1]


def test_top_k_keeps_the_largest_and_everything_equal_to_the_last():
    assert np.allclose(
        shares(LOGITS, top_k=2), [0, *softmax([3.0, 2.0])[:1], 0, softmax([3.0, 2.0])[1], 0], atol=1e-4
    )
    assert (shares([2.0, 1.0, 1.0, 0.0], top_k=2) > 0).tolist() == [True, True, True, False]
    assert np.allclose(shares(LOGITS, top_k=99), softmax(LOGITS), atol=1e-4)


def test_top_p_keeps_ids_while_those_before_have_less():
    p = softmax(LOGITS)
    assert (shares(LOGITS, top_p=float(p[1]) - 0.01) > 0).tolist() == [False, True, False, False, False]
    assert (shares(LOGITS, top_p=float(p[1]) + 0.01) > 0).tolist() == [False, True, False, True, False]
    assert (shares(LOGITS, top_p=1e-6) > 0).sum() == 1


def test_top_p_counts_within_what_top_k_kept():
    assert (shares([3.0, 2.9, 2.8, 2.7], top_k=2, top_p=0.6) > 0).tolist() == [True, True, False, False]


def test_the_penalty_divides_positive_and_multiplies_negative_logits():
    penalised = [1.0, 3.0 / 1.5, -0.5 * 1.5, 2.0, 0.0]
    assert np.allclose(
        shares(LOGITS, repetition_penalty=1.5, penalised=(1, 2, 4)), softmax(penalised), atol=1e-4
    )
    assert draw(LOGITS, 0.0, temperature=0, repetition_penalty=2.0, penalised=(1,)).tolist() == [3]


def test_suppressed_ids_never_come_and_do_not_count_for_top_k():
    assert draw(LOGITS, 0.0, temperature=0, suppressed=(1,)).tolist() == [3]
    assert (shares(LOGITS, suppressed=(1,), top_k=2) > 0).tolist() == [True, False, False, True, False]


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=VOCABULARY, max_size=VOCABULARY),
    st.integers(0, 2**24 - 1),
    st.sampled_from([0.0, 0.3, 0.9, 1.5]),
    st.integers(0, VOCABULARY + 2),
    st.floats(0.01, 1.0),
    st.sets(st.integers(0, VOCABULARY - 1)),
    st.sets(st.integers(0, VOCABULARY - 1), max_size=VOCABULARY - 1),
    st.sampled_from([np.float32, np.float64]),
)
def test_any_draw_is_a_kept_id(logits, noise, temperature, top_k, top_p, penalised, suppressed, dtype):
    noise = np.float32(noise / 2**24)
    token = int(draw(logits, noise, temperature, top_k, top_p, 1.3, penalised, suppressed, dtype)[0])
    assert token not in suppressed
    if top_k == 1:
        assert (
            token == int(draw(logits, 0.0, 0.0, 0, 1.0, 1.3, penalised, suppressed, dtype)[0])
            or temperature > 0
        )


def test_rows_are_drawn_each_with_its_own_parameters():
    logits = np.tile(np.array(LOGITS), (3, 1))
    off = np.zeros((3, 5), bool)
    tokens = sample_token(
        logits,
        np.array([0.99, 0.99, 0.99], np.float32),
        np.array([0, 1, 1], np.float32),
        np.array([0, 0, 1]),
        np.ones(3, np.float32),
        np.ones(3, np.float32),
        off,
        off,
    )
    assert tokens.dtype == np.int64 and tokens.tolist() == [1, 4, 1]


def test_philox_noise_draws_the_distribution():
    noise = uniform(1, 0, np.arange(20000))
    counts = np.bincount(draw(LOGITS, noise), minlength=5) / 20000
    assert np.allclose(counts, softmax(LOGITS), atol=0.02)
