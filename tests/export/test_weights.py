"""Weights on their way from the checkpoint to the file beside the graph:
one at a time, page by page, or not at all.
"""

from __future__ import annotations

import errno
import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ir = pytest.importorskip("onnx_ir")

import antiphon.graphs.checkpoints.checkpoint as reading
from antiphon.export.weights import ALIGNMENT, write_weights
from antiphon.graphs.stage import WeightSource, plain, transposed
from antiphon.runtime.bundle.errors import AntiphonError


class FakeCheckpoint:
    """Tensors by name, made anew at every read as from a file."""

    path = Path("checkpoint")

    def __init__(self, **tensors: np.ndarray) -> None:
        self.tensors = tensors

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name].astype(np.float32)


def model(**shapes: tuple[int, ...]) -> ir.Model:
    """A graph that has these parameters and nothing else."""
    values = [
        ir.Value(name=name, shape=ir.Shape(list(shape)), type=ir.TensorType(ir.DataType.FLOAT))
        for name, shape in shapes.items()
    ]
    graph = ir.Graph([], [], nodes=[], initializers=values, name="stage")
    return ir.Model(graph, ir_version=10)


@pytest.fixture
def tensors() -> FakeCheckpoint:
    noise = np.random.default_rng(0)
    return FakeCheckpoint(
        matrix=noise.normal(size=(5, 3)),
        bias=noise.normal(size=7),
        **{f"part{n}": noise.normal(size=(2, 2)) for n in range(3)},
    )


SOURCES = {
    "a.matrix": transposed("matrix"),
    "b.bias": plain("bias"),
    "c.parts": WeightSource(("part0", "part1", "part2"), lambda *parts: np.stack(parts)),
}
SHAPES = {"c.parts": (3, 2, 2), "b.bias": (7,), "a.matrix": (3, 5)}


def test_every_parameter_is_found_in_the_file_as_its_source_makes_it(
    tensors: FakeCheckpoint, tmp_path: Path
) -> None:
    stage = model(**SHAPES)
    write_weights(stage, SOURCES, tensors, tmp_path / "weights.bin")
    values = {name: value.const_value for name, value in stage.graph.initializers.items()}
    np.testing.assert_array_equal(values["a.matrix"].numpy(), tensors.read("matrix").T)
    np.testing.assert_array_equal(values["b.bias"].numpy(), tensors.read("bias"))
    np.testing.assert_array_equal(
        values["c.parts"].numpy(), np.stack([tensors.read(f"part{n}") for n in range(3)])
    )


def test_parameters_lie_in_name_order_at_page_boundaries(tensors: FakeCheckpoint, tmp_path: Path) -> None:
    stage = model(**SHAPES)
    write_weights(stage, SOURCES, tensors, tmp_path / "weights.bin")
    offsets = {name: value.const_value.offset for name, value in stage.graph.initializers.items()}
    assert offsets == {"a.matrix": 0, "b.bias": ALIGNMENT, "c.parts": 2 * ALIGNMENT}
    assert (tmp_path / "weights.bin").stat().st_size == 2 * ALIGNMENT + 3 * 2 * 2 * 4
    assert all(value.const_value.location == "weights.bin" for value in stage.graph.initializers.values())


def test_equal_weights_give_an_equal_file(tensors: FakeCheckpoint, tmp_path: Path) -> None:
    for name, shapes in (("one", SHAPES), ("two", dict(reversed(SHAPES.items())))):
        write_weights(model(**shapes), SOURCES, tensors, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_every_parameter_is_reported_when_it_is_written(tensors: FakeCheckpoint, tmp_path: Path) -> None:
    reported: list[int] = []
    write_weights(model(**SHAPES), SOURCES, tensors, tmp_path / "weights.bin", reported.append)
    assert reported == [60, 28, 48]


def test_a_shape_that_does_not_fit_names_the_tensor_and_both_shapes(
    tensors: FakeCheckpoint, tmp_path: Path
) -> None:
    sentence = (
        r"Tensor matrix of checkpoint gives shape \[3, 5\] for stage.a.matrix, "
        r"expected \[5, 3\] from config.json"
    )
    with pytest.raises(AntiphonError, match=sentence):
        write_weights(model(**{"a.matrix": (5, 3)}), SOURCES, tensors, tmp_path / "weights.bin")


def test_a_full_disk_is_an_error_of_the_operating_system(tensors: FakeCheckpoint) -> None:
    with pytest.raises(OSError) as raised:
        write_weights(
            model(**SHAPES),
            SOURCES,
            tensors,
            SimpleNamespace(open=Path("/dev/full").open, name="full", parent=Path("/dev")),
        )  # type: ignore[arg-type]
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize(("dtype", "item"), [("BF16", 2), ("F16", 2), ("F32", 4), ("F64", 8)])
def test_reading_a_tensor_takes_no_memory_beside_the_result(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, item: int
) -> None:
    count = 1 << 20
    header = json.dumps(
        {"w": {"dtype": dtype, "shape": [1024, 1024], "data_offsets": [0, count * item]}}
    ).encode()
    stored = np.random.default_rng(0).integers(0, 60, count * item, dtype=np.uint8)
    (tmp_path / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + stored.tobytes()
    )
    (tmp_path / "config.json").write_bytes((tiny_checkpoint / "config.json").read_bytes())
    checkpoint = reading.Checkpoint(tmp_path)
    whole = checkpoint.read("w")
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 16)
    tracemalloc.start()
    try:
        in_pieces = checkpoint.read("w")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(in_pieces, whole)
    assert in_pieces.dtype == np.float32 and peak < 1.1 * in_pieces.nbytes


def test_memory_holds_no_more_than_one_parameter_and_what_it_is_made_from(tmp_path: Path) -> None:
    size = 1 << 20  # values; 4 MiB each
    stored = np.zeros((1024, 1024), np.float16)
    checkpoint = FakeCheckpoint(**{f"w{n}": stored for n in range(4)})
    stage = model(**{f"p{n}": (1024, 1024) for n in range(4)})
    sources = {f"p{n}": transposed(f"w{n}") for n in range(4)}
    tracemalloc.start()
    try:
        write_weights(stage, sources, checkpoint, tmp_path / "weights.bin")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.2 * 4 * size
