from __future__ import annotations

from antiphon.runtime.events import Timings


def test_the_real_time_factor_is_time_over_sound_and_missing_without_sound():
    assert Timings(total=1.0, audio_seconds=4.0).real_time_factor == 0.25
    assert Timings(total=1.0).real_time_factor is None
