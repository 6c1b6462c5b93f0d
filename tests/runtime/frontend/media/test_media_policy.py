from __future__ import annotations

import math
from typing import Any

import pytest

import antiphon
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.media_policy import MediaPolicy, TooLong


def test_the_default_opens_local_files_and_the_servers_does_not() -> None:
    assert antiphon.MediaPolicy is MediaPolicy
    assert MediaPolicy().local_files and not MediaPolicy.for_server().local_files


def test_a_server_is_tighter_in_every_limit() -> None:
    ours, theirs = MediaPolicy(), MediaPolicy.for_server()
    for name in ("max_file_bytes", "max_data_bytes", "max_pixels", "max_frames", "max_seconds", "max_parts"):
        assert getattr(theirs, name) < getattr(ours, name)


def test_a_servers_limits_can_be_replaced_by_name() -> None:
    policy = MediaPolicy.for_server(max_seconds=60)
    assert policy.max_seconds == 60 and not policy.local_files
    with pytest.raises(
        AntiphonError, match="no limit 'max_minutes'; expected one of local_files, max_file_bytes"
    ):
        MediaPolicy.for_server(max_minutes=1)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_pixels": 0},
        {"max_frames": 2.5},
        {"max_seconds": math.nan},
        {"max_parts": True},
        {"local_files": 1},
    ],
)
def test_a_limit_that_is_none_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(AntiphonError, match="The media policy's .* expected"):
        MediaPolicy(**limits)


def test_what_goes_beyond_a_limit_is_refused_with_the_limit() -> None:
    policy = MediaPolicy(
        max_file_bytes=10, max_data_bytes=10, max_pixels=100, max_frames=10, max_seconds=10, max_parts=10
    )
    (
        policy.check_file_bytes(10, "audio"),
        policy.check_data_bytes(10, "audio"),
        policy.check_pixels(10, 10, "The image"),
    )
    policy.check_frames(10), policy.check_seconds(10.0, "audio"), policy.check_parts(10)
    for check, sentence in [
        (lambda: policy.check_file_bytes(11, "audio"), "The audio file has 11 bytes, expected at most 10"),
        (lambda: policy.check_data_bytes(11, "video"), "The video data has 11 bytes, expected at most 10"),
        (
            lambda: policy.check_pixels(11, 10, "The image"),
            "The image is 11 x 10 pixels, expected at most 100 in all",
        ),
        (lambda: policy.check_pixels(0, 10, "The image"), "The image is 0 x 10 pixels; give one with pixels"),
        (lambda: policy.check_frames(11), "The video has 11 frames or more, expected at most 10"),
        (lambda: policy.check_parts(11), "11 content parts, expected at most 10"),
    ]:
        with pytest.raises(AntiphonError, match=sentence):
            check()
    for seconds in (10.5, math.inf, math.nan):
        with pytest.raises(TooLong, match="expected at most 10.0 s"):
            policy.check_seconds(seconds, "audio")
