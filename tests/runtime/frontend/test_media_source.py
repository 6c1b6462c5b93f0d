from __future__ import annotations

import base64
from pathlib import Path

import pytest

from antiphon.runtime.errors import AntiphonError
from antiphon.runtime.frontend.media_source import resolve_source

DATA = bytes(range(256)) * 40
ENCODED = base64.b64encode(DATA).decode()


@pytest.mark.parametrize("source", [ENCODED, f"data:audio/wav;base64,{ENCODED}", "\n".join([ENCODED[:80], ENCODED[80:]]), DATA, bytearray(DATA)])
def test_encoded_data_gives_its_bytes(source: object) -> None:
    assert resolve_source(source, "audio") == DATA


def test_files_give_their_path(tmp_path: Path) -> None:
    path = tmp_path / "a clip.wav"
    path.write_bytes(DATA)
    for source in (str(path), path, f"file://{str(path).replace(' ', '%20')}"):
        assert resolve_source(source, "audio") == path


def test_bad_sources_raise_one_sentence(tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    empty.touch()
    for source, sentence in {
        "https://example.org/a.wav": "is not fetched; download it first",
        "HTTP://example.org/a.wav": "is not fetched; download it first",
        "no/such/file.wav": "neither an existing file nor base64",
        "x" * 5001: "neither an existing file nor base64",
        "data:audio/wav,abc": "not of the form data:TYPE;base64",
        "data:audio/wav;base64,": "is empty",
        "": "No audio file|is empty",
        str(tmp_path): "found a folder",
        "file:///no/such/file": "found nothing",
        str(empty): r"is empty \(0 bytes\)",
        b"": "is empty",
        3: "is given as 3; expected a local path",
    }.items():
        with pytest.raises(AntiphonError, match=sentence):
            resolve_source(source, "audio")
