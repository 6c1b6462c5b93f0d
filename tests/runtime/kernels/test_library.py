"""A folder of compiled kernels: what is read back, and what a damaged one says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("triton")

from antiphon.plugins.tools.programs import programs
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.library import CONTRACT_FILE, KernelLibrary, default_library

from .host_device import write_library

OP = "CausalConvState"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_library(tmp_path / "kernels", "sm80", programs("sm80", [OP]))


def test_a_library_is_read_back(folder: Path) -> None:
    library = KernelLibrary.open(folder, "sm80")
    assert (library.target, library.compiler, list(library.programs)) == (
        "sm80",
        {"none": "0"},
        programs("sm80", [OP]),
    )
    for key, image in library.images.items():
        assert library.cubin(key) == key.encode() and library.ptx(key) == key and image.target == "sm80"


def test_a_target_that_is_not_there_says_how_to_make_it(folder: Path) -> None:
    with pytest.raises(
        AntiphonError, match="holds no kernels for sm90; run: antiphon plugins compile --target sm90"
    ):
        KernelLibrary.open(folder, "sm90")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 1}'])
def test_a_damaged_contract_is_one_sentence(folder: Path, text: str) -> None:
    (folder / "sm80" / OP / CONTRACT_FILE).write_text(text)
    with pytest.raises(AntiphonError, match="is damaged"):
        KernelLibrary.open(folder, "sm80")


def test_a_contract_of_another_version_is_one_sentence(folder: Path) -> None:
    file = folder / "sm80" / OP / CONTRACT_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 99}))
    with pytest.raises(AntiphonError, match="has contract version 99"):
        KernelLibrary.open(folder, "sm80")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is missing"), (b"other", "is not the file that its contract describes")]
)
def test_machine_code_that_is_missing_or_changed_is_one_sentence(
    folder: Path, content: bytes | None, message: str
) -> None:
    library = KernelLibrary.open(folder, "sm80")
    key = next(iter(library.images))
    file = folder / "sm80" / OP / f"{key}.cubin"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(AntiphonError, match=message):
        library.cubin(key)


def test_the_library_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANTIPHON_CACHE", str(tmp_path))
    assert default_library() == tmp_path / "kernels"
    monkeypatch.setenv("ANTIPHON_KERNELS", str(tmp_path / "mine"))
    assert default_library() == tmp_path / "mine"
    monkeypatch.delenv("ANTIPHON_KERNELS")
    monkeypatch.delenv("ANTIPHON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_library() == tmp_path / "xdg" / "antiphon" / "kernels"
