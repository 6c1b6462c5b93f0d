from __future__ import annotations

import base64
from pathlib import Path

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.media_policy import MediaPolicy
from antiphon.runtime.frontend.media.media_source import resolve_source

DATA = bytes(range(256)) * 40
ENCODED = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "source",
    [
        ENCODED,
        f"data:audio/wav;base64,{ENCODED}",
        "\n".join([ENCODED[:80], ENCODED[80:]]),
        DATA,
        bytearray(DATA),
    ],
)
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


def test_a_server_reads_data_and_asks_the_file_system_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "a.wav"
    there.write_bytes(DATA)
    policy = MediaPolicy.for_server()
    for name in ("stat", "exists", "is_file", "is_dir", "open"):
        monkeypatch.setattr(Path, name, lambda *_: pytest.fail("the file system was asked"))
    for source in (ENCODED, f"data:audio/wav;base64,{ENCODED}", DATA):
        assert resolve_source(source, "audio", policy) == DATA
    for here, absent in (
        (str(there), str(tmp_path / "b.wav")),
        (there, tmp_path / "b.wav"),
        (f"file://{there}", f"file://{tmp_path}/b.wav"),
    ):
        sentences = []
        for source in (here, absent):
            with pytest.raises(
                AntiphonError, match="encode its content as base64 or give a data URL"
            ) as refusal:
                resolve_source(source, "audio", policy)
            sentences.append(str(refusal.value).replace("b.wav", "a.wav"))
        assert sentences[0] == sentences[1], "no error tells whether the path exists"


def test_too_much_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, path = MediaPolicy(max_data_bytes=len(DATA) - 1, max_file_bytes=len(DATA) - 1), tmp_path / "a.wav"
    path.write_bytes(DATA)
    monkeypatch.setattr(base64, "b64decode", lambda *_, **__: pytest.fail("decoded"))
    for source, kind in (
        (ENCODED, "data"),
        ("\n".join(ENCODED), "data"),
        (f"data:audio/wav;base64,{ENCODED}", "data"),
        (DATA, "data"),
        (path, "file"),
    ):
        with pytest.raises(
            AntiphonError, match=f"The audio {kind} has 10,240 bytes, expected at most 10,239"
        ):
            resolve_source(source, "audio", policy)


def test_as_much_as_allowed_is_read() -> None:
    for size in (1, 2, 3, 4):
        data = bytes(range(size))
        assert (
            resolve_source(base64.b64encode(data).decode(), "audio", MediaPolicy(max_data_bytes=size)) == data
        )
