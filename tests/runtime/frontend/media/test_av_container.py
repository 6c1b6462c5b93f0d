from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.av_container import FILM_CODECS, SOUND_CODECS, decoded, open_container
from antiphon.runtime.frontend.media.media_policy import LOCAL, MediaPolicy

from ..vision.test_video import grey_film

av = pytest.importorskip("av")


def test_ffmpeg_is_told_one_format_no_protocol_and_known_codecs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    path, real = grey_film(tmp_path / "a.mp4", frames=2), av.open

    def watching(file: Any, **options: Any) -> Any:
        told.update(options, file=file)
        return real(file, **options)

    monkeypatch.setattr(av, "open", watching)
    with open_container(path, "video", LOCAL, "it") as container:
        assert len(list(decoded(container, container.streams.video[0], LOCAL, "it"))) == 2
    options = told["options"]
    assert (
        told["format"] == options["format_whitelist"] == "mp4"
        and options["protocol_whitelist"] == "none"
        and options["enable_drefs"] == "0"
    )
    assert not isinstance(told["file"], str) and told["file"].name == ""
    assert options["codec_whitelist"].split(",") == [*SOUND_CODECS, *FILM_CODECS]


def test_ffmpeg_opens_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    path, real = grey_film(tmp_path / "a.avi", frames=2), av.open
    monkeypatch.setattr(av, "open", lambda file, **options: [told.update(options), real(file, **options)][1])
    with (
        pytest.raises(AntiphonError, match="It refers to media in another file, which is not opened"),
        open_container(path, "video", LOCAL, "It"),
    ):
        told["io_open"]("elsewhere", 1, {})


def test_a_codec_that_is_not_listed_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.runtime.frontend.media.av_container.FILM_CODECS", ["h264"])
    with (
        pytest.raises(AntiphonError, match="It has a track coded as mpeg4, which is not read; convert it"),
        open_container(grey_film(tmp_path / "a.mp4", frames=2), "video", LOCAL, "It") as container,
    ):
        list(decoded(container, container.streams.video[0], LOCAL, "It"))


def test_frames_beyond_the_policy_are_not_decoded(tmp_path: Path) -> None:
    tight, path = MediaPolicy(max_pixels=32 * 32), grey_film(tmp_path / "a.mp4", frames=2)
    with (
        pytest.raises(AntiphonError, match="It cannot be read as video"),
        open_container(path, "video", tight, "It") as container,
    ):
        list(decoded(container, container.streams.video[0], tight, "It"))
