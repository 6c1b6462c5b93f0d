from __future__ import annotations

from antiphon.runtime.bundle import StageEntry
from antiphon.runtime.chunks import SCORE_BYTES, chunk_at

ENTRY = StageEntry("thinker", "onnxruntime", "", "fp32", (), (), constants={"attention_heads": 16})


def test_a_short_context_is_read_in_the_largest_chunks():
    assert chunk_at(ENTRY, 0, 512) == 512 and chunk_at(ENTRY, 1000, 512) == 512


def test_far_into_a_long_context_the_scores_of_a_run_stay_within_their_memory():
    for row in (10_000, 100_000, 262_143, 10**9):
        chunk = chunk_at(ENTRY, row, 512)
        assert chunk >= 1 and (chunk == 1 or 4 * 16 * chunk * row <= SCORE_BYTES)


def test_an_engine_of_unknown_heads_counts_as_one_head():
    assert chunk_at(StageEntry("thinker", "fake", "", "fp32", (), ()), SCORE_BYTES // 8, 512) == 2
