"""The portable graphs: what they are made of, and that plain ONNX Runtime gets from
them what the modules give.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import onnx_ir as ir

import antiphon
from antiphon.export.portable import export_portable
from antiphon.export.weights import write_weights
from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.random.new_checkpoint import new_checkpoint
from antiphon.graphs.stages.thinker import thinker_stage
from antiphon.plugins.registry import DOMAIN

from .exported import Exported, carried, close, decoder_feeds, run, step_feeds

STAGES = ("audio_encoder", "vision_encoder", "thinker", "talker", "predictor", "code2wav")
USED_OPS = {
    "thinker": {"Attention", "MoE", "SampleToken"},
    "talker": {"Attention", "MoE", "SampleToken"},
    "predictor": {"Attention", "SampleToken"},
}


@pytest.mark.parametrize("name", STAGES)
def test_graph_is_opset_24_ir_10_with_the_functions_it_uses(exported: Any, name: str) -> None:
    model = exported[name].graph()
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    assert used == USED_OPS.get(name, set())
    assert {function.name for function in model.functions} == used
    assert {given.domain: given.version for given in model.opset_import} == (
        {"": 24, DOMAIN: 1} if used else {"": 24}
    )
    assert model.ir_version == 10 and model.producer_name == "antiphon" and model.graph.name == name
    assert {node.domain for node in model.graph.node} <= {"", DOMAIN}


@pytest.mark.parametrize("name", STAGES)
def test_graph_passes_the_checker_with_full_shape_inference(exported: Any, name: str, tmp_path: Path) -> None:
    onnx.checker.check_model(
        str(own_files(exported[name].folder, tmp_path) / "portable.onnx"), full_check=True
    )


def own_files(stage: Path, destination: Path) -> Path:
    """A copy of the files of `stage`: other tests link to the bundle's,
    and onnx refuses weights that have a second name.
    """
    return Path(shutil.copytree(stage, destination / stage.name))


@pytest.mark.parametrize("name", ["thinker", "predictor"])
def test_graph_passes_polygraphy_inspect(exported: Any, name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("polygraphy") is None:
        pytest.skip("polygraphy is not installed")
    start = "import sys; from polygraphy.tools import main; sys.exit(main())"
    command = [
        sys.executable,
        "-c",
        start,
        "inspect",
        "model",
        str(own_files(exported[name].folder, tmp_path) / "portable.onnx"),
        "--model-type=onnx",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "[E]" not in result.stdout and name in result.stdout


@pytest.mark.parametrize("name", STAGES)
def test_graph_holds_no_local_path_and_no_source_text(exported: Any, name: str) -> None:
    for file in ("portable.onnx", "engine.onnx"):
        content = (exported[name].folder / file).read_bytes()
        for secret in (
            str(Path(antiphon.__file__).parent),
            sys.prefix,
            str(Path.home()),
            str(exported[name].folder),
            "site-packages",
            ".py",
            'File "',
        ):
            assert secret.encode() not in content, secret
        model = exported[name].graph(file)
        assert not model.metadata_props and not model.doc_string and not model.graph.doc_string
        assert {prop.key for node in model.graph.node for prop in node.metadata_props} <= {"module"}


@pytest.mark.parametrize("name", STAGES)
def test_inputs_and_outputs_have_the_names_types_and_axes_of_the_stage(exported: Any, name: str) -> None:
    stage, graph = exported[name].stage, exported[name].graph().graph
    for values, specs, prefix in (
        (graph.input, stage.inputs, "past."),
        (graph.output, stage.outputs, "present."),
    ):
        expected = [(spec.name, spec.dtype, spec.shape) for spec in specs] + [
            (prefix + state.name, state.dtype, state.shape) for state in stage.states
        ]
        found = []
        for value in values:
            kind = value.type.tensor_type
            shape = tuple(axis.dim_param or axis.dim_value for axis in kind.shape.dim)
            found.append((value.name, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape))
        assert found == expected


@pytest.mark.parametrize("name", STAGES)
def test_every_parameter_is_stored_once_outside_the_graph(exported: Any, name: str) -> None:
    found = exported[name]
    with torch.device("meta"):
        parameters = {
            given: list(parameter.shape) for given, parameter in found.stage.make_module().named_parameters()
        }
    outside = {tensor.name: tensor for tensor in found.graph().graph.initializer if tensor.external_data}
    assert {given: list(tensor.dims) for given, tensor in outside.items()} == parameters
    ranges = []
    for tensor in outside.values():
        where = {entry.key: entry.value for entry in tensor.external_data}
        assert where["location"] == "weights.bin" and int(where["length"]) == 4 * np.prod(tensor.dims)
        ranges.append((int(where["offset"]), int(where["offset"]) + int(where["length"])))
    ranges.sort()
    assert all(
        before[1] <= after[0] and after[0] % 4096 == 0
        for before, after in zip(ranges, ranges[1:], strict=False)
    )
    assert ranges[-1][1] == (found.folder / "weights.bin").stat().st_size
    assert (
        sum(
            len(tensor.SerializeToString())
            for tensor in found.graph().graph.initializer
            if not tensor.external_data
        )
        < 100_000
    )


@pytest.mark.parametrize("name", ["thinker", "talker"])
def test_decoder_in_plain_onnx_runtime_equals_its_module(exported: Any, name: str) -> None:
    """A ragged prefill of two streams, then a step of each behind its own past."""
    found, states = exported[name], exported[name].states(batch=2)
    for lengths, past in (([7, 4], [0, 0]), ([1, 1], [7, 4])):
        feeds = decoder_feeds(name, found, lengths, past) | states
        ours, theirs = run(found.portable, feeds), found.run_module(feeds)
        assert list(ours) == list(theirs)
        for output in ours:
            close(ours[output], theirs[output])
        states = carried(ours)


def test_predictor_steps_in_plain_onnx_runtime_equal_the_module(exported: Any) -> None:
    found, random = exported["predictor"], np.random.default_rng(0)
    hidden = random.normal(size=(2, found.stage.constants["hidden_size"])).astype(np.float32)
    states = found.states(batch=2, capacity=16)
    for step in range(15):
        feeds = (
            step_feeds(found, 2, step, random.integers(0, found.stage.constants["codebook_size"], 2), hidden)
            | states
        )
        ours, theirs = run(found.portable, feeds), found.run_module(feeds)
        for output in ours:
            close(ours[output], theirs[output])
        states = carried(ours)


def test_variant_without_deepstack_with_bias_and_dense_layers_exports_too(tmp_path: Path) -> None:
    text = "thinker_config.text_config"
    overrides = {
        f"{text}.num_hidden_layers": 2,
        f"{text}.mlp_only_layers": [0],
        f"{text}.attention_bias": True,
        f"{text}.num_key_value_heads": 4,
        "thinker_config.vision_config.deepstack_visual_indexes": [],
        "thinker_config.tie_word_embeddings": True,
        "talker_config.accept_hidden_layer": 0,
    }
    checkpoint = Checkpoint(new_checkpoint(tmp_path / "checkpoint", seed=1, overrides=overrides))
    found = Exported(thinker_stage(checkpoint.config), checkpoint, tmp_path)
    model = export_portable(found.stage)
    write_weights(model, found.stage.weights(checkpoint), checkpoint, tmp_path / "weights.bin")
    ir.save(model, tmp_path / "portable.onnx")
    assert "deepstack" not in {node.name for node in found.portable.get_inputs()}
    feeds = decoder_feeds("thinker", found, [6], [0]) | found.states()
    ours, theirs = run(found.portable, feeds), found.run_module(feeds)
    for output in ours:
        close(ours[output], theirs[output])
