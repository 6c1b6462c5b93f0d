from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.media_formats import FORMATS, REFUSED, detect, require_format

from ..vision.test_video import grey_film

SOUND = 0.1 * np.sin(np.arange(4000) / 10)


@pytest.mark.parametrize("name", ["WAV", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "RF64"])
def test_what_libsndfile_writes_is_known_as_that(name: str) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, SOUND, 16000, format=name)
    found = detect(buffer.getvalue())
    assert (
        found is not None
        and found.name == {"W64": "Wave64", "RF64": "WAV"}.get(name, name)
        and "audio" in found.kinds
        and found.soundfile
    )


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF"])
def test_what_pillow_writes_is_known_as_that(name: str) -> None:
    buffer = io.BytesIO()
    pytest.importorskip("PIL.Image").new("RGB", (8, 8)).save(buffer, name)
    assert require_format(buffer.getvalue(), "image", "The image").name == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.mp4", "MP4"), ("a.mov", "MP4"), ("a.mkv", "MKV"), ("a.webm", "MKV"), ("a.avi", "AVI")],
)
def test_films_are_known_by_their_content(tmp_path: Path, name: str, expected: str) -> None:
    path = grey_film(tmp_path / name.replace("webm", "mkv"), frames=2)
    assert (
        require_format(path, "video", "it").name
        == expected
        == require_format(path.rename(tmp_path / "a.txt"), "audio", "it").name
    )


def test_an_mp3_is_known_behind_its_tags() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, SOUND, 16000, format="MP3")
    tags = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
    assert [
        found and found.name
        for found in map(detect, (tags + buffer.getvalue(), tags + b"fLaC", bytes(9) + buffer.getvalue()))
    ] == ["MP3", "FLAC", "MP3"]


@pytest.mark.parametrize(("signature", "name"), REFUSED)
def test_lists_and_documents_are_refused_by_name(signature: bytes, name: str) -> None:
    for kind in ("audio", "image", "video"):
        with pytest.raises(AntiphonError, match=f"^It cannot be read as {kind}: it is {name}; give "):
            require_format(signature + b" and so on", kind, "It")


@given(st.text(max_size=200))
def test_no_text_is_taken_for_media(text: str) -> None:
    found = detect(("#" + text).encode())
    assert (
        found is None
        or found is FORMATS["mp4"]
        and text[3:7] in ("ftyp", "moov", "mdat", "free", "skip", "wide")
    )
