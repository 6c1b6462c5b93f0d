"""Which ops of ai.antiphon a stage uses is known without its weights and without an export."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from antiphon.export.op_forms import op_forms
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.families.registry import stages
from antiphon.plugins.registry import OPS
from antiphon.runtime.bundle.manifest import read_manifest


def test_forms_name_the_op_its_place_its_attributes_and_its_inputs(tiny_checkpoint: Path) -> None:
    config = read_config(tiny_checkpoint)
    thinker = next(stage for stage in stages(config) if stage.name == "thinker")
    text, found = config.thinker.text, op_forms(thinker)
    attention, experts = found[0], found[1]
    assert (attention.op, attention.node) == ("Attention", "layers.0.attention")
    assert attention.attribute("num_heads") == text.num_attention_heads
    assert (experts.op, experts.node) == ("MoE", "layers.0.feed_forward")
    name, dtype, shape = experts.inputs[2]
    assert (name, dtype, shape) == (
        "gate_up",
        "float32",
        (text.num_experts, 2 * text.moe_intermediate_size, text.hidden_size),
    )
    assert found[-1].op == "SampleToken"


@pytest.mark.parametrize("bundle", ["tiny", "hybrid"])
def test_forms_are_the_ops_of_the_exported_graph(bundle: str, request: pytest.FixtureRequest) -> None:
    ir = pytest.importorskip("onnx_ir")
    checkpoint, folder = (
        request.getfixturevalue(f"{bundle}_checkpoint"),
        request.getfixturevalue(f"{bundle}_bundle"),
    )
    assert read_manifest(folder)
    for stage in stages(read_config(checkpoint)):
        graph = ir.load(folder / "stages" / stage.name / "portable.onnx").graph
        exported = [node.op_type for node in graph if node.domain == "ai.antiphon"]
        assert sorted(form.op for form in op_forms(stage)) == sorted(exported), stage.name
        assert set(exported) <= set(OPS)
