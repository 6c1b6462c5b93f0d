"""The operators of antiphon_triton: in PyTorch's graphs for a GPU that is not here (see triton_graphs),
and run here in the Triton interpreter.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

import torch

from antiphon.plugins import triton_ops
from antiphon.plugins.attention.torch_op import attention
from antiphon.plugins.causal_conv_state.torch_op import causal_conv_state
from antiphon.plugins.registry import FOLDERS, OPS
from antiphon.plugins.tools import interpreter
from antiphon.plugins.tools.programs import programs
from antiphon.runtime.bundle.errors import AntiphonError


@pytest.fixture(scope="module")
def graphs() -> dict[str, Any]:
    """What triton_graphs finds, of all ops."""
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("triton_graphs.py"))],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.fixture
def interpreted() -> None:
    """Operators of two ops on the CPU, with the interpreter's arithmetic made exact."""
    interpreter._patch_interpreter()
    triton_ops.register("sm90", ["CausalConvState", "Attention"])


def test_operator_takes_the_inputs_and_attributes_of_its_op_in_order(graphs: dict[str, Any]) -> None:
    for name, op in OPS.items():
        schema = graphs["schemas"][FOLDERS[name]]
        arguments = [
            argument.split()[-1]
            for argument in schema[schema.index("(") + 1 : schema.index(") ->")].split(", ")
        ]
        assert arguments == [name for name, _ in (*op.inputs, *op.attributes)]


def test_operator_of_a_state_in_place_writes_it_and_returns_the_rest(graphs: dict[str, Any]) -> None:
    schema = graphs["schemas"]["attention"]
    assert "Tensor(a3!) past_key, Tensor(a4!) past_value" in schema
    assert schema.endswith("-> Tensor")


@pytest.mark.parametrize("op", FOLDERS)
def test_graph_of_known_sizes_launches_what_the_contract_says(op: str, graphs: dict[str, Any]) -> None:
    found = [graph for graph in graphs["static"] if graph["op"] == op]
    assert found
    for graph in found:
        assert graph["found"] == graph["expected"], graph["program"]
        assert graph["unwritten"] == [], graph["program"]


@pytest.mark.parametrize("op", FOLDERS)
def test_graph_promises_the_shapes_and_dtypes_of_the_reference_and_of_the_plain_operator(
    op: str, graphs: dict[str, Any]
) -> None:
    for graph in (graph for graph in graphs["static"] if graph["op"] == op):
        assert [(math.prod(shape), shape[-1], dtype) for shape, dtype in graph["results"]] == [
            (math.prod(shape), shape[-1], dtype) for shape, dtype in graph["promised"]
        ], graph["program"]
        assert graph["eager"] in (None, graph["results"]), graph["program"]


@pytest.mark.parametrize("op", FOLDERS)
def test_graph_of_a_growing_size_serves_all_its_values_without_guards(
    op: str, graphs: dict[str, Any]
) -> None:
    (graph,) = (graph for graph in graphs["dynamic"] if graph["op"] == op)
    assert graph["found"] == graph["expected"]
    assert graph["guards"] == []
    assert graph["ranges"] == [[2, 4096]]


def test_kernels_need_no_name_that_inductor_does_not_copy(graphs: dict[str, Any]) -> None:
    assert {name: names for name, names in graphs["unresolved"].items() if names} == {}


def test_exported_module_gets_kernels_for_its_operator(graphs: dict[str, Any]) -> None:
    graph = graphs["captured"]["causal_conv_state"]
    assert [target.replace("antiphon.", "antiphon_triton.") for target in graph["before"]] == graph["after"]
    assert graph["after"][0] == "antiphon_triton.causal_conv_state.default"
    assert graph["same_results"]
    assert "triton_kernel_wrapper_functional" in graph["lowered"]
    assert graph["copied"] == [[]]  # fresh outputs are not copied before they are written


def test_exported_module_updates_the_state_that_nothing_else_reads_in_place(graphs: dict[str, Any]) -> None:
    graph = graphs["captured"]["attention"]
    assert graph["after"] == ["aten.clone.default", "antiphon_triton.attention.default", "aten.sum.default"]
    assert graph["outputs"] == ["attention", "past_key", "clone_default", "sum_1"]
    assert graph["same_results"]
    assert len(graph["mutated"]) == 1
    assert "present_value_ptr" not in graph["copied"][0]  # the clone is the only copy


def test_conv_operator_equals_the_plain_one_in_the_interpreter(interpreted: None) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, past = (
        torch.randn(shape, generator=generator) for shape in ((2, 19, 48), (48, 1, 4), (2, 3, 48))
    )
    length = torch.tensor([19, 7])
    for found, expected in zip(
        torch.ops.antiphon_triton.causal_conv_state(x, weight, past, length),
        causal_conv_state(x, weight, past, length),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_attention_operator_writes_the_cache_that_the_plain_one_returns_in_the_interpreter(
    interpreted: None,
) -> None:
    generator = torch.Generator().manual_seed(1)
    query, rows = (
        torch.randn((1, 3, 4 * 64), generator=generator),
        torch.randn((2, 1, 3, 2 * 64), generator=generator),
    )
    caches = torch.randn((2, 1, 2, 32, 64), generator=generator)
    past, length = torch.tensor([9]), torch.tensor([2])
    expected = attention(query, rows[0], rows[1], caches[0], caches[1], past, length, 4, 2)
    y = torch.ops.antiphon_triton.attention(query, rows[0], rows[1], caches[0], caches[1], past, length, 4, 2)
    for found, wanted in zip((y, *caches), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_operator_passes_the_checks_of_pytorch(interpreted: None) -> None:
    arguments = (torch.randn(1, 2, 16), torch.randn(16, 1, 4), torch.randn(1, 3, 16), torch.tensor([2]))
    # the others hand the interpreter tensors without memory
    checks = ("test_schema", "test_autograd_registration")
    torch.library.opcheck(torch.ops.antiphon_triton.causal_conv_state.default, arguments, test_utils=checks)


def test_graph_module_runs_the_replaced_operator(interpreted: None) -> None:
    class Layer(torch.nn.Module):
        def forward(self, *tensors: Any) -> Any:
            return torch.ops.antiphon.causal_conv_state(*tensors)

    arguments = (torch.randn(1, 2, 16), torch.randn(16, 1, 4), torch.randn(1, 3, 16), torch.tensor([2]))
    module = torch.export.export(Layer(), arguments).module()
    expected = module(*arguments)
    assert triton_ops.use_triton_ops(module, "sm90") is module
    for found, wanted in zip(module(*arguments), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_replacing_is_refused_when_no_program_fits() -> None:
    class Layer(torch.nn.Module):
        def forward(self, *tensors: Any) -> Any:
            return torch.ops.antiphon.causal_conv_state(*tensors)

    exported = torch.export.export(
        Layer(), (torch.randn(1, 2, 24), torch.randn(24, 1, 4), torch.randn(1, 3, 24), torch.tensor([2]))
    )
    with pytest.raises(AntiphonError, match="No compiled kernel of CausalConvState fits"):
        triton_ops.use_triton_ops(exported, "sm90")


def test_state_to_be_written_must_be_contiguous(interpreted: None) -> None:
    query, key, at = torch.randn(1, 1, 4 * 64), torch.randn(1, 1, 2 * 64), torch.tensor([1])
    cache = torch.randn(1, 2, 64, 32).transpose(2, 3)
    with pytest.raises(AntiphonError, match="writes past_key in place and needs it contiguous"):
        torch.ops.antiphon_triton.attention(query, key, key, cache, cache.clone(), at, at, 4, 2)


def test_registering_asks_for_a_target_when_there_is_no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(AntiphonError, match="name the target"):
        triton_ops.register()


def test_registering_for_another_target_replaces_the_programs() -> None:
    for target in ("sm90", "sm86"):
        item = triton_ops.register(target, ["MoE"])["moe"]
        assert item.programs == tuple(
            program for program in programs(target, ["MoE"]) if len(program.inputs) == 4
        )
        assert str(torch.ops.antiphon_triton.moe.default._schema).endswith("-> Tensor")


def test_programs_of_one_signature_must_write_the_same_states() -> None:
    program = next(
        program
        for program in programs("sm90", ["CausalConvState"])
        if program.inputs[0].dtype == program.inputs[2].dtype
    )
    y, present = program.outputs
    in_place = dataclasses.replace(
        program, name="in-place", outputs=(y, dataclasses.replace(present, alias="past"))
    )
    with pytest.raises(AntiphonError, match="differ in what they write in place"):
        list(triton_ops.triton_ops([program, in_place]))


def test_program_with_further_inputs_is_an_operator_of_its_own() -> None:
    names = [item.name for item in triton_ops.triton_ops(programs("sm90", ["GatedDeltaRule"]))]
    assert names == ["gated_delta_rule", "gated_delta_rule_with_z_norm_weight"]
