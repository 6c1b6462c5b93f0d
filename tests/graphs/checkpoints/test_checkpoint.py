"""Reading checkpoint folders: values, layouts of experts, and the sentence said for every kind of damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.graphs.checkpoints import safetensors_folder
from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.layers.weights import experts_down, experts_gate_up, head
from antiphon.graphs.random.new_checkpoint import new_checkpoint
from antiphon.graphs.random.random_values import encode
from antiphon.graphs.stage import WeightSource, transposed
from antiphon.runtime.bundle.errors import AntiphonError

EXPERTS = "thinker.model.layers.0.mlp.experts"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def write_file(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """A safetensors file of (dtype, shape, bytes)."""
    header: dict[str, Any] = {}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())
    )


@pytest.fixture
def single(tiny: Path, tmp_path: Path) -> Path:
    """A folder with the tiny config.json and no weights yet."""
    shutil.copy(tiny / "config.json", tmp_path)
    return tmp_path


def assemble(checkpoint: Checkpoint, source: WeightSource) -> np.ndarray:
    return source.assemble(*(checkpoint.read(name) for name in source.tensors))


def test_every_tensor_equals_what_safetensors_reads(tiny: Path) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors")
    checkpoint = Checkpoint(tiny)
    names = set()
    for shard in tiny.glob("*.safetensors"):
        with safetensors.safe_open(shard, "pt") as file:
            for name in file.keys():
                stored = file.get_tensor(name)
                assert stored.dtype == torch.bfloat16 and checkpoint.dtype(name) == "BF16"
                assert checkpoint.shape(name) == tuple(stored.shape)
                np.testing.assert_array_equal(checkpoint.read(name), stored.float().numpy())
                names.add(name)
    assert names == set(checkpoint.names())
    assert checkpoint.config.family == "qwen3_omni_moe"


@pytest.mark.parametrize(
    ("code", "stored"),
    [("F16", "<f2"), ("F32", "<f4"), ("F64", "<f8")],
)
def test_floating_values_are_read_as_float32(single: Path, code: str, stored: str) -> None:
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(stored)
    write_file(single / "model.safetensors", {"w": (code, (3, 5), values.tobytes())})
    read = Checkpoint(single).read("w")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.astype(np.float32))


@pytest.mark.parametrize(("code", "stored"), [("I64", "<i8"), ("I32", "<i4"), ("BOOL", "?")])
def test_integers_are_read_as_stored(single: Path, code: str, stored: str) -> None:
    values = np.array([[0, 1], [1, 1]], dtype=stored)
    write_file(single / "model.safetensors", {"w": (code, (2, 2), values.tobytes())})
    read = Checkpoint(single).read("w")
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


def test_scalars_and_empty_tensors_are_read(single: Path) -> None:
    write_file(
        single / "model.safetensors",
        {"scalar": ("F32", (), np.float32(7).tobytes()), "empty": ("BF16", (0, 4), b"")},
    )
    checkpoint = Checkpoint(single)
    assert checkpoint.read("scalar") == 7 and checkpoint.read("empty").shape == (0, 4)
    assert checkpoint.digest("empty") != checkpoint.digest("scalar")


def test_bfloat16_is_rounded_to_nearest_even() -> None:
    torch = pytest.importorskip("torch")
    values = np.concatenate(
        [np.random.default_rng(0).normal(size=1000), [0.0, -0.0, 1.00390625, 1.01171875, 3e38]]
    ).astype(np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    assert encode(values, "bfloat16") == expected


def test_digest_depends_on_dtype_shape_and_bytes_alone(single: Path) -> None:
    data = np.arange(6, dtype="<f4").tobytes()
    stored = {"a": ("F32", (2, 3), data), "same": ("F32", (2, 3), data), "shape": ("F32", (3, 2), data)}
    write_file(
        single / "model.safetensors",
        {**stored, "dtype": ("I32", (2, 3), data), "bytes": ("F32", (2, 3), data[::-1])},
    )
    checkpoint = Checkpoint(single)
    assert checkpoint.digest("a") == checkpoint.digest("same")
    assert len({checkpoint.digest(name) for name in ("a", "shape", "dtype", "bytes")}) == 4


def test_both_expert_layouts_give_the_same_parameter(tiny: Path, tmp_path: Path) -> None:
    fused = Checkpoint(new_checkpoint(tmp_path / "fused", layout="fused"))
    split = Checkpoint(tiny)
    assert fused.has(f"{EXPERTS}.gate_up_proj") and not fused.has(f"{EXPERTS}.0.gate_proj.weight")
    for prefix in (EXPERTS, "talker.model.layers.2.mlp.experts"):
        gate_up = assemble(split, experts_gate_up(split, prefix, 8))
        np.testing.assert_array_equal(gate_up, assemble(fused, experts_gate_up(fused, prefix, 8)))
        np.testing.assert_array_equal(gate_up[3, 0::2], split.read(f"{prefix}.3.gate_proj.weight"))
        np.testing.assert_array_equal(gate_up[3, 1::2], split.read(f"{prefix}.3.up_proj.weight"))
        down = assemble(split, experts_down(split, prefix, 8))
        np.testing.assert_array_equal(down, assemble(fused, experts_down(fused, prefix, 8)))
        np.testing.assert_array_equal(down[5], split.read(f"{prefix}.5.down_proj.weight"))


@pytest.mark.parametrize(("width", "hidden"), [(4, 6), (4, 4), (4, 8), (8, 4), (2, 4)])
def test_transposed_fused_experts_give_the_same_parameter(single: Path, width: int, hidden: int) -> None:
    random = np.random.default_rng(0)
    gate_up = random.normal(size=(3, 2 * width, hidden)).astype("<f4")
    down = random.normal(size=(3, hidden, width)).astype("<f4")
    stored = {}
    for prefix, first, second in (
        ("plain", gate_up, down),
        ("swapped", gate_up.swapaxes(1, 2), down.swapaxes(1, 2)),
    ):
        stored[f"{prefix}.gate_up_proj"] = ("F32", first.shape, np.ascontiguousarray(first).tobytes())
        stored[f"{prefix}.down_proj"] = ("F32", second.shape, np.ascontiguousarray(second).tobytes())
    write_file(single / "model.safetensors", stored)
    checkpoint = Checkpoint(single)
    for prefix in ("plain", "swapped"):
        joined = assemble(checkpoint, experts_gate_up(checkpoint, prefix, 3))
        np.testing.assert_array_equal(joined[:, 0::2], gate_up[:, :width])
        np.testing.assert_array_equal(joined[:, 1::2], gate_up[:, width:])
        np.testing.assert_array_equal(assemble(checkpoint, experts_down(checkpoint, prefix, 3)), down)
    with pytest.raises(AntiphonError, match="with 4 experts"):
        experts_down(checkpoint, "plain", 4)


def test_error_names_the_experts_when_their_count_differs(tiny: Path) -> None:
    checkpoint = Checkpoint(tiny)
    with pytest.raises(AntiphonError, match="experts.8.gate_proj.weight is missing"):
        experts_gate_up(checkpoint, EXPERTS, 9)
    with pytest.raises(AntiphonError, match="more experts than the 7"):
        experts_down(checkpoint, EXPERTS, 7)


def test_head_is_the_embedding_when_tied(tiny: Path, tmp_path: Path) -> None:
    names = ("thinker.lm_head.weight", "thinker.model.embed_tokens.weight")
    checkpoint = Checkpoint(tiny)
    assert head(checkpoint, *names, tied=False).tensors == (names[0],)
    tied = Checkpoint(
        new_checkpoint(tmp_path / "tied", overrides={"thinker_config.tie_word_embeddings": True})
    )
    assert not tied.has(names[0])
    np.testing.assert_array_equal(
        assemble(tied, head(tied, *names, tied=True, source=transposed)), tied.read(names[1]).T
    )
    with pytest.raises(
        AntiphonError, match=r"thinker.lm_head.weight is missing \(with tie_word_embeddings false"
    ):
        head(tied, *names, tied=False)


def test_error_names_the_tensor_when_it_is_missing_or_of_another_shape(tiny: Path) -> None:
    checkpoint = Checkpoint(tiny)
    for call in (checkpoint.read, checkpoint.shape, checkpoint.dtype, checkpoint.digest):
        with pytest.raises(AntiphonError, match="tensor thinker.nothing is missing"):
            call("thinker.nothing")
    checkpoint.expect_shape("thinker.model.norm.weight", (128,))
    with pytest.raises(AntiphonError, match=r"thinker.model.norm.weight has shape \[128\], expected \[64\]"):
        checkpoint.expect_shape("thinker.model.norm.weight", (64,))


@pytest.mark.parametrize("code", ["I8", "F8_E4M3", "U8"])
def test_error_names_tensor_and_supported_dtypes_when_the_dtype_is_not(single: Path, code: str) -> None:
    write_file(single / "model.safetensors", {"quantised": (code, (4,), b"1234")})
    with pytest.raises(
        AntiphonError, match=f"tensor quantised is stored as {code}, expected one of BF16, F16, F32"
    ):
        Checkpoint(single)


def test_error_says_so_when_there_are_no_weights(single: Path) -> None:
    with pytest.raises(AntiphonError, match="holds no weights"):
        Checkpoint(single)


def test_error_names_the_shard_when_it_is_missing(folder: Path) -> None:
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        AntiphonError,
        match="model-00002-of-00002.safetensors is missing but model.safetensors.index.json lists it",
    ):
        Checkpoint(folder)


@pytest.mark.parametrize("kept", [0, 5, 8, 4000, -1])
def test_error_names_the_shard_when_it_is_truncated(folder: Path, kept: int) -> None:
    shard = folder / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(AntiphonError, match=r"model-00001-of-00002.safetensors is truncated"):
        Checkpoint(folder)


def test_error_says_so_when_a_shard_shrinks_after_opening(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    shard = folder / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100_000])
    with pytest.raises(AntiphonError, match="ended while it was being read"):
        for name in checkpoint.names():
            checkpoint.read(name)


@pytest.mark.parametrize(
    "header",
    [
        b'{"w": 3}',
        b'{"w": {"dtype": "F32", "shape": [2]}}',
        b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"w": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}',
    ],
)
def test_error_names_the_file_when_its_header_is_broken(single: Path, header: bytes) -> None:
    (single / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"12345678")
    with pytest.raises(
        AntiphonError, match="model.safetensors is truncated, broken or not a safetensors file"
    ):
        Checkpoint(single)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"not json", "invalid"),
        (b"[]", "invalid JSON"),
        (b'{"\xff": 1}', "invalid UTF-8"),
        (b"[" * 5000, "invalid JSON"),
        (
            b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "w": {"dtype": "F32", "shape": '
            b'[1], "data_offsets": [4, 8]}}',
            "offset for tensor .w",
        ),
        (
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": '
            b'[1], "data_offsets": [0, 4]}}',
            "offset for tensor",
        ),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', "offset for tensor .a"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', "file not fully covered"),
        (b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8]}}', "floating point"),
        (b'{"w": {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}}', "string"),
        (b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [false, 8]}}', "boolean"),
        (
            b'{"w": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 8]}}'
            % b",".join([b"9" * 4000] * 500),
            "number out of range",
        ),
        (
            b'{"w": {"dtype": "F64", "shape": [%s], "data_offsets": [0, 8]}}' % b",".join([b"1"] * 500),
            "w has 500 axes of up to 1, expected at most 16",
        ),
        (
            b'{"v": {"dtype": "F32", "shape": [0, 9223372036854775808], "data_offsets": [0, 0]}, "w": '
            b'{"dtype": "F64", "shape": [], "data_offsets": [0, 8]}}',
            "v has 2 axes of up to 9223372036854775808, expected at most 16 axes of 63 bits",
        ),
        (b'{"w": {"dtype": "F32", "shape": [9223372036854775807], "data_offsets": [0, 8]}}', "overflow"),
        (b'{"w": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}', "unknown variant .F99"),
        (b'{"a\\nb": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', "holds the tensor 'a.nb'"),
        (
            b'{"%s": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}' % (b"a" * 5000),
            "holds the tensor",
        ),
    ],
)
def test_error_says_what_is_wrong_with_a_header(single: Path, header: bytes, said: str) -> None:
    (single / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"12345678")
    with pytest.raises(AntiphonError, match=said) as caught:
        Checkpoint(single)
    assert len(str(caught.value)) < 600


def test_tensors_lie_where_the_header_says_whatever_its_order(single: Path) -> None:
    """Names and offsets in unlike orders, an empty tensor between two others, metadata,
    and blanks behind the header.
    """
    header = {
        "__metadata__": {"format": "pt"},
        "last": {"dtype": "F32", "shape": [2], "data_offsets": [6, 14]},
        "empty": {"dtype": "F32", "shape": [0], "data_offsets": [6, 6]},
        "first": {"dtype": "F16", "shape": [3, 1], "data_offsets": [0, 6]},
    }
    text, first, last = (
        json.dumps(header).encode() + b"   ",
        np.array([1, 2, 3], "<f2"),
        np.array([4, 5], "<f4"),
    )
    (single / "model.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + first.tobytes() + last.tobytes()
    )
    checkpoint = Checkpoint(single)
    assert set(checkpoint.names()) == {"empty", "first", "last"}
    np.testing.assert_array_equal(checkpoint.read("first"), [[1], [2], [3]])
    np.testing.assert_array_equal(checkpoint.read("last"), [4, 5])
    assert checkpoint.read("empty").shape == (0,)


def test_error_says_so_when_a_file_announces_a_header_longer_than_any(single: Path) -> None:
    (single / "model.safetensors").write_bytes((2**24 + 1).to_bytes(8, "little") + b"{}")
    with pytest.raises(AntiphonError, match="it announces a header of 16,777,217 bytes"):
        Checkpoint(single)


def test_error_says_so_when_a_file_grows_after_its_header_was_read(single: Path) -> None:
    write_file(single / "model.safetensors", {"w": ("F32", (), b"1234")})
    found = safetensors_folder.find_tensors(single)
    with (single / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(AntiphonError, match="was changed while it was being read"):
        found.tensors()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON"),
        ("[]", "holds a list"),
        ("{}", "is not an index of shards"),
        ('{"weight_map": 3}', "is not an index of shards"),
        ('{"weight_map": {"w": 3}}', "file names were expected"),
        ('{"weight_map": {"w": "../x.safetensors"}}', "expected the name of a file beside it"),
        ('{"weight_map": {"w": "%s"}}' % ("x" * 5000), "expected the name of a file beside it"),
        ('{"weight_map": {"w": "x\\u0000"}}', "expected the name of a file beside it"),
        ('{"weight_map": {"%s": "x"}}' % ("w" * 5000), "holds the tensor"),
    ],
)
def test_error_names_the_index_when_it_is_broken(folder: Path, content: str, said: str) -> None:
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(AntiphonError, match=f"model.safetensors.index.json .*{said}"):
        Checkpoint(folder)


def test_error_names_both_when_the_index_places_a_tensor_where_it_is_not(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["thinker.extra.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(
        AntiphonError,
        match=(
            "places tensor thinker.extra.weight in model-00001-of-00002.safetensors, which does not hold it"
        ),
    ):
        Checkpoint(folder)
