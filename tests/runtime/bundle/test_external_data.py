"""Which files an ONNX file refers to: as onnx itself sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.external_data import FIELDS, external_files
from antiphon.runtime.bundle.manifest import read_manifest

onnx = pytest.importorskip("onnx")


def external(name: str, location: str) -> Any:
    tensor = onnx.TensorProto(
        name=name, data_type=onnx.TensorProto.FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in (("offset", "0"), ("location", location), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_every_field_that_leads_to_a_tensor_is_one_of_onnx() -> None:
    """Against the descriptors of the onnx library:
    each field of each message that holds one of the messages in FIELDS, and no other.
    """
    for message, fields in FIELDS.items():
        described = getattr(onnx, message).DESCRIPTOR.fields
        leading = {
            field.number: field.message_type.name for field in described if field.message_type is not None
        }
        assert fields == {
            number: name
            for number, name in leading.items()
            if name in {*FIELDS, "StringStringEntryProto"} and _leads(message, number)
        }


def _leads(message: str, number: int) -> bool:
    """Entries lead to a file where they are the external data of a tensor alone; elsewhere they are notes."""
    field = next(field for field in getattr(onnx, message).DESCRIPTOR.fields if field.number == number)
    return field.message_type.name != "StringStringEntryProto" or field.name == "external_data"


def test_locations_are_found_wherever_a_tensor_can_be(tmp_path: Path) -> None:
    deep = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["c"], value=external("v", "in a subgraph"))], "deep", [], []
    )
    loop = onnx.helper.make_node("If", ["x"], ["y"], then_branch=deep)
    sparse = onnx.SparseTensorProto(
        values=external("s", "of a sparse tensor"), indices=external("i", "of its indices")
    )
    many = onnx.helper.make_node("Many", [], ["m"], domain="d")
    many.attribute.add(name="tensors", type=onnx.AttributeProto.TENSORS).tensors.append(
        external("t", "in a list")
    )
    graph = onnx.helper.make_graph(
        [loop, many],
        "location",
        [],
        [],
        [external("w", "weights.bin"), external("w2", "weights.bin")],
        sparse_initializer=[sparse],
    )
    function = onnx.helper.make_function(
        "d",
        "f",
        [],
        ["c"],
        [onnx.helper.make_node("Constant", [], ["c"], value=external("f", "in a function"))],
        [],
    )
    model = onnx.helper.make_model(graph, functions=[function])
    model.metadata_props.add(key="location", value="only a note")
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    expected = {
        "weights.bin",
        "in a subgraph",
        "of a sparse tensor",
        "of its indices",
        "in a list",
        "in a function",
    }
    assert external_files(tmp_path / "a.onnx") == expected


def test_every_engine_of_a_bundle_takes_its_weights_from_beside_it(tiny_bundle: Path) -> None:
    for entry in read_manifest(tiny_bundle).stages.values():
        model = onnx.load(tiny_bundle / entry.artifacts[0], load_external_data=False)
        expected = {
            pair.value
            for tensor in model.graph.initializer
            for pair in tensor.external_data
            if pair.key == "location"
        }
        assert external_files(tiny_bundle / entry.artifacts[0]) == expected == {"weights.bin"}


@given(content=st.binary(max_size=200))
def test_any_bytes_give_locations_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    try:
        assert isinstance(external_files(path), set)
    except AntiphonError as error:
        assert str(error) == f"{path} is not an ONNX file; build the bundle again."
