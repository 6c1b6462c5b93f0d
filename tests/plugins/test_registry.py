"""Every op of the domain is described once and the same everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

from antiphon import plugins
from antiphon.plugins import onnx_domain
from antiphon.plugins.registry import DOMAIN, DOMAIN_VERSION, FOLDERS, OPS

from .one_op import graph

ATTRIBUTES = {"num_heads": 4, "kv_num_heads": 2, "key_heads": 2, "value_heads": 4}
"""Attributes that must fit together; any other is 1."""
RANKS = {
    "MoE": (2, 2, 3, 3, 2),
    "QuantizedMoE": (2, 2, 3, 3, 3, 3, 2),
    "Attention": (3, 3, 3, 4, 4, 1, 1, 3, 4, 4),
    "SampleToken": (2, 1, 1, 1, 1, 1, 2, 2, 1),
    "CausalConvState": (3, 3, 3, 1, 3, 3),
    "GatedDeltaRule": (3, 3, 3, 3, 3, 1, 1, 4, 1, 3, 4),
    "AriaStep": (1, 2, 1, 1, 2, 2, 2, 2, 2, 1, 1, 1, 2),
}
"""Of inputs and outputs."""


def test_every_folder_is_an_op_and_every_op_a_folder() -> None:
    folders = {file.parent.name for file in Path(plugins.__path__[0]).glob("*/function.py")}
    assert set(FOLDERS) == set(OPS)
    assert set(FOLDERS.values()) == folders


@pytest.mark.parametrize("name", list(OPS))
def test_function_has_the_signature_of_the_op(name: str) -> None:
    op, function = OPS[name], onnx_domain.function(name)
    assert (function.domain, function.name) == (DOMAIN, op.name)
    assert list(function.input) == [given for given, _ in op.inputs]
    assert list(function.output) == [given for given, _ in op.outputs]
    assert list(function.attribute) == [given for given, _ in op.attributes]
    assert {imported.domain: imported.version for imported in function.opset_import} == {"": 24}


@pytest.mark.parametrize("name", list(OPS))
def test_schema_is_registered_once_with_the_description_of_the_op(name: str) -> None:
    op = OPS[name]
    first, again = onnx_domain.schema(op), onnx_domain.schema(op)
    assert first.since_version == again.since_version == DOMAIN_VERSION and first.doc == op.doc
    assert [(given.name, given.type_str) for given in first.inputs] == list(op.inputs)
    assert [(given.name, given.type_str) for given in first.outputs] == list(op.outputs)
    assert {given for given, attribute in first.attributes.items() if attribute.required} == {
        given for given, _ in op.attributes
    }


@pytest.mark.parametrize("name", list(OPS))
def test_graph_with_one_node_passes_the_checker(name: str) -> None:
    model = graph(
        name, (), **{attribute: ATTRIBUTES.get(attribute, 1) for attribute, _ in OPS[name].attributes}
    )
    for value, rank in zip((*model.graph.input, *model.graph.output), RANKS[name], strict=True):
        for axis in range(rank):
            value.type.tensor_type.shape.dim.add().dim_param = f"{value.name}_{axis}"
    onnx.checker.check_model(model, full_check=True)


def test_registry_is_plain_data_that_needs_no_other_library() -> None:
    code = (
        "import sys, antiphon.plugins.registry; print(sorted({'torch', 'onnx', 'onnx_ir', "
        "'numpy'} & set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
