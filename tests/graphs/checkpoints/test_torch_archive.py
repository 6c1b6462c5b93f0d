"""Archives of torch.save: read without running them, written without torch,
and refused in one sentence when anything is wrong with them.
"""

from __future__ import annotations

import collections
import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.graphs.checkpoints import torch_archive
from antiphon.graphs.checkpoints.torch_archive import (
    MOST_STEPS,
    STORAGES,
    read_torch_archive,
    write_torch_archive,
)
from antiphon.runtime.bundle.errors import AntiphonError

NUMPY_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "I32": "<i4", "BOOL": "?"}


def entries(prefix: str = "") -> list[tuple[str, str, tuple[int, ...], bytes]]:
    random = np.random.default_rng(0)
    shapes = [(3, 5), (), (0, 4), (300, 1, 7), (40_000,)]
    floats = [
        (f"{prefix}w{place}", "F32", shape, random.normal(size=shape).astype("<f4").tobytes())
        for place, shape in enumerate(shapes)
    ]
    others = [
        (f"{prefix}{dtype}", dtype, (2, 3), np.arange(6).astype(kind).tobytes())
        for dtype, kind in NUMPY_TYPES.items()
    ]
    return [*floats, *others, (f"{prefix}bf16", "BF16", (2,), b"\x80\x3f\x00\xc0")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model_weights.pt"


def rewrite(
    path: Path, change: dict[str, bytes | None] | None = None, compress: str = "", drop: str = ""
) -> None:
    """Write the archive again with members changed or added, one of them compressed, or one left out."""
    with zipfile.ZipFile(path) as archive:
        members = {
            name: archive.read(name) for name in archive.namelist() if not drop or not name.endswith(drop)
        }
    root = next(iter(members)).partition("/")[0]
    members |= {f"{root}/{name}": content for name, content in (change or {}).items() if content is not None}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            squeezed = bool(compress) and name.endswith(compress)
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if squeezed else zipfile.ZIP_STORED)


def sentence(path: Path) -> str:
    """The one sentence with which reading `path` is refused; it names the file and stands on one line."""
    with pytest.raises(AntiphonError) as refused:
        read_torch_archive(path)
    text = str(refused.value)
    assert str(path) in text and "\n" not in text and text.endswith(".")
    return text


def test_written_tensors_are_found_where_they_lie(path: Path) -> None:
    write_torch_archive(path, iter(entries("generator.")))
    found, content = read_torch_archive(path), path.read_bytes()
    for name, dtype, shape, data in entries():
        tensor = found[name]
        assert (tensor.shard, tensor.dtype, tensor.shape, content[tensor.begin : tensor.end]) == (
            path,
            dtype,
            shape,
            data,
        )
    assert len(found) == len(entries())


def test_equal_tensors_give_equal_files(path: Path) -> None:
    contents = set()
    for _ in range(2):
        write_torch_archive(path, entries())
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_written_file_is_read_by_torch_with_weights_only(path: Path) -> None:
    torch = pytest.importorskip("torch")
    write_torch_archive(path, entries())
    loaded = torch.load(path, weights_only=True)
    assert list(loaded) == [name for name, _, _, _ in entries()]
    for name, _, shape, data in entries():
        assert (
            tuple(loaded[name].shape) == shape
            and loaded[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == data
        ), name


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "step": 3},
        lambda state: {"model": {"generator": state}, "other": None},
    ],
)
def test_files_of_torch_are_read_whatever_wraps_them(path: Path, wrap: Any, protocol: int) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Conv1d(4, 3, 1), torch.nn.BatchNorm1d(3)).state_dict()
    torch.save(wrap(state), path, pickle_protocol=protocol)
    found, content = read_torch_archive(path), path.read_bytes()
    assert set(found) == set(state)
    for name, tensor in found.items():
        assert content[tensor.begin : tensor.end] == state[name].numpy().tobytes() and tensor.shape == tuple(
            state[name].shape
        )


def test_only_the_generator_is_kept_when_a_file_holds_more(path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"generator.a": torch.ones(2), "discriminator.a": torch.ones(3), "step": 5}, path)
    assert {name: tensor.shape for name, tensor in read_torch_archive(path).items()} == {"a": (2,)}


def test_slices_of_a_storage_are_found_by_their_offset(path: Path) -> None:
    torch = pytest.importorskip("torch")
    whole = torch.arange(12.0).reshape(4, 3)
    torch.save({"rows": whole[1:3], "one": whole[:, 1:2][:1]}, path)
    found, content = read_torch_archive(path), path.read_bytes()
    assert np.frombuffer(content[found["rows"].begin : found["rows"].end], "<f4").tolist() == [
        3,
        4,
        5,
        6,
        7,
        8,
    ]
    assert np.frombuffer(content[found["one"].begin : found["one"].end], "<f4").tolist() == [1]


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("place", ["value", "key", "state", "alone"])
def test_code_in_a_pickle_never_runs(path: Path, tmp_path: Path, place: str, protocol: int) -> None:
    proof = tmp_path / "proof"
    call = Calls(os.system, f"touch {proof}")
    if place == "state":
        value: Any = collections.OrderedDict()
        value.__dict__["_metadata"] = call
    else:
        value = {"value": {"w": call}, "key": {call: 1}, "alone": call}[place]
    pickled = pickle.dumps(value, protocol)
    write_torch_archive(path, entries())
    rewrite(path, {"data.pkl": pickled})
    assert "asks to call" in (text := sentence(path)) and " system" in text
    assert not proof.exists()
    pickle.loads(pickled)  # the same bytes do run where pickles are loaded
    assert proof.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02}",
        b".",
        b"\x80\x02u.",
        b"\x80\x02K\x01.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02h\x05.",
        b"\x80\x02](K\x01K\x02e.",
        b"\xff\xff",
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00echo\x85R.",
        b"\x80\x02cposix\nsystem\n.",
        b"(S'echo'\nios\nsystem\n.",
        b"\x80\x02}]K\x01s.",
        b"\x80\x02Q.",
    ],
)
def test_broken_pickles_are_refused(path: Path, pickled: bytes) -> None:
    write_torch_archive(path, entries())
    rewrite(path, {"data.pkl": pickled})
    assert "pickle" in sentence(path) or "dictionary of tensors" in sentence(path)


INTEGERS = b"\x8a\xff" + b"\x7f" * 255  # LONG1 of 2,040 bits
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(("


@pytest.mark.parametrize(
    "pickled",
    [
        # a mark and an empty tuple, again and again
        b"\x80\x02" + b"N" * 10 + b"(t" * (MOST_STEPS // 4) + b".",
        b"\x80\x02)" + b"\x94h\x00\x86" * 40 + b"\x8c\x01x\x93.",  # a name that is tuples of tuples
        b"\x80\x02}(X\x01\x00\x00\x00w"
        + TENSOR
        + b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQK\x00("
        + INTEGERS * 2000
        + b"t("
        + INTEGERS * 2000
        + b"t\x89NtRu.",  # 2,000 axes of 2,040 bits
    ],
    ids=["marks", "name", "axes"],
)
def test_pickles_that_would_take_any_time_are_refused_at_once(path: Path, pickled: bytes) -> None:
    write_torch_archive(path, entries())
    rewrite(path, {"data.pkl": pickled})
    before = time.process_time()
    sentence(path)
    assert time.process_time() - before < 2


def test_a_pickle_of_too_many_steps_is_refused(path: Path) -> None:
    write_torch_archive(path, entries())
    rewrite(path, {"data.pkl": b"\x80\x02" + b"N" * (MOST_STEPS + 1) + b"."})
    assert f"more than {MOST_STEPS} instructions" in sentence(path)


def test_a_directory_of_too_many_members_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_torch_archive(path, entries())
    with path.open("rb") as file, zipfile.ZipFile(path) as archive:
        assert torch_archive._directory_bytes(file) == archive.fp.seek(0, 2) - archive.start_dir - 22  # type: ignore[union-attr]
    monkeypatch.setattr(torch_archive, "LARGEST_DIRECTORY", 500)
    assert "zip directory has more than 500 bytes" in sentence(path)


def test_every_shortened_file_is_refused(path: Path) -> None:
    write_torch_archive(path, entries()[:2])
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        assert "truncated or damaged" in sentence(path) or length < 2


def test_random_damage_never_gives_anything_but_a_sentence_or_tensors_inside_the_file(path: Path) -> None:
    write_torch_archive(path, entries()[:4])
    content, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(600):
        damaged = bytearray(content)
        # the pickle and the directory stand last
        for place in random.integers(len(content) - 600, len(content), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            found = read_torch_archive(path)
        except AntiphonError as error:
            assert str(path) in str(error)
        else:
            assert all(0 <= tensor.begin <= tensor.end <= len(content) for tensor in found.values())


def test_a_file_that_is_no_zip_is_refused(path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert "not a zip archive" in sentence(path)


def test_a_missing_file_is_refused(path: Path) -> None:
    assert "cannot be read" in sentence(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"change": {"byteorder": b"big"}}, "little-endian"),
        ({"compress": "data/0"}, "tensor w0 are compressed"),
        ({"compress": "data.pkl"}, "data.pkl' is compressed"),
        ({"drop": "data/0"}, "values of tensor w0 are missing"),
        ({"drop": "data.pkl"}, "0 members named data.pkl"),
        ({"change": {"more/data.pkl": b""}}, "2 members named data.pkl"),
        ({"change": {"data/0": b"1234"}}, "tensor w0 needs 60 bytes of its storage, which has 4"),
    ],
)
def test_archives_with_wrong_members_are_refused(path: Path, damage: dict[str, Any], words: str) -> None:
    write_torch_archive(path, entries())
    rewrite(path, **damage)
    assert words in sentence(path)


def test_other_contents_than_plain_tensors_are_refused(path: Path) -> None:
    torch = pytest.importorskip("torch")
    cases = {
        "not contiguous": {"w": torch.ones(3, 2).T},
        "entry 'step' is no tensor": {"w": torch.ones(2), "step": 5},
        "a list found": [torch.ones(2)],
        "storage of type 'ByteStorage' found": {"w": torch.ones(2, dtype=torch.uint8)},
        "to call 'torch._utils _rebuild_parameter'": {"w": torch.nn.Parameter(torch.ones(2))},
    }
    for words, value in cases.items():
        torch.save(value, path)
        assert words in sentence(path)


def test_every_storage_type_has_a_name_of_torch() -> None:
    torch = pytest.importorskip("torch")
    assert all(hasattr(torch, name) for name in STORAGES)
