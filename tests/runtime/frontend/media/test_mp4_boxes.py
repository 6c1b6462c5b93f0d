from __future__ import annotations

import struct
from pathlib import Path

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.mp4_boxes import MOST_BOXES, check_boxes

from .. import absurd_media as absurd
from ..vision.test_video import grey_film


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_ordinary_films_pass(tmp_path: Path, name: str) -> None:
    check_boxes(grey_film(tmp_path / name, frames=2, sound=True), "it")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (absurd.mp4_of_another_file(), "refers to media in another file, which is not opened"),
        (absurd.mp4_of_samples(10**9), "claims 1,000,000,000 samples in 76 bytes"),
        (
            absurd.box(b"ftyp", bytes(8)) + absurd.box(b"moov", absurd.box(b"cmov", b"")),
            "compressed movie header",
        ),
        (absurd.box(b"ftyp", b"") * (MOST_BOXES + 1), "more than 100,000 boxes"),
    ],
)
def test_what_points_elsewhere_or_claims_too_much_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        check_boxes(data, "The film")


def test_broken_boxes_are_left_to_who_reads_the_media() -> None:
    whole = absurd.mp4_of_samples(10)
    for data in (
        b"",
        whole[:20],
        struct.pack(">I", 4) + b"moov",
        struct.pack(">I", 1) + b"moov",
        b"\0\0\0\0moov",
        absurd.box(b"moov", whole * 3),
    ):
        check_boxes(data, "The film")
