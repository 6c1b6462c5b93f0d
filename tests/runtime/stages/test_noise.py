from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.sampling import SamplingParameters
from antiphon.runtime.stages.noise import Noise, philox4x32, uniform

WORD = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    assert philox4x32(np.array(counter, np.uint32), np.array(key, np.uint32)).tolist() == expected


def slow_philox(counter: list[int], key: list[int]) -> list[int]:
    """Written from the paper with Python integers."""
    for _ in range(10):
        left, right = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            right >> 32 ^ counter[1] ^ key[0],
            right % 2**32,
            left >> 32 ^ counter[3] ^ key[1],
            left % 2**32,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


@given(st.lists(st.lists(WORD, min_size=6, max_size=6), min_size=1, max_size=8))
def test_philox_of_many_counters_is_philox_of_each(rows):
    words = np.array(rows, np.uint32)
    assert philox4x32(words[:, :4], words[:, 4:]).tolist() == [slow_philox(row[:4], row[4:]) for row in rows]


@given(seed=st.integers(0, 2**64 - 1), stage=st.integers(0, 2), position=WORD, codebook=st.integers(0, 15))
def test_uniform_takes_24_bits_of_the_first_word(seed, stage, position, codebook):
    word = slow_philox([stage, position, codebook, 0], [seed % 2**32, seed >> 32])[0]
    value = uniform(seed, stage, position, codebook)
    assert value.dtype == np.float32 and 0 <= value < 1 and value == (word >> 8) / 2**24


@given(position=st.integers(0, 500), first=st.integers(0, 500))
def test_noise_of_a_position_does_not_depend_on_what_was_asked_before(position, first):
    noise = Noise(11, 2, range(1, 16))
    noise.at(first)
    assert np.array_equal(noise.at(position), uniform(11, 2, position, np.arange(1, 16)))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, None])
def test_a_seed_must_be_64_bits(seed):
    with pytest.raises(AntiphonError, match="seed"):
        uniform(seed, 0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("repetition_penalty", 0),
        ("min_tokens", -1),
        ("max_tokens", 0),
        ("temperature", "hot"),
    ],
)
def test_sampling_parameters_name_the_value_that_is_out_of_range(name, value):
    with pytest.raises(AntiphonError, match=name):
        SamplingParameters(**{name: value})


def test_greedy_keeps_penalty_and_limits():
    greedy = SamplingParameters(0.9, 50, 0.8, 1.05, 2, 9).greedy()
    assert greedy == SamplingParameters(0.0, 50, 0.8, 1.05, 2, 9)
