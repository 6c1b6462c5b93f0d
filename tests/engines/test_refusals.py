"""A form of an op that a kind does not cover is refused by name, in the plan and in the build,
before any weight is read.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from antiphon.export import build as building
from antiphon.export import plan as planning
from antiphon.export.engines import registry as builders
from antiphon.export.engines.registry import builder_kinds
from antiphon.graphs.stage import Stage
from antiphon.plugins.quantized_moe.torch_op import quantized_moe
from antiphon.runtime.bundle.errors import InvalidInput, UnsupportedTarget
from antiphon.runtime.bundle.specs import TensorSpec

from ..checkpoints_read import never_read
from . import numpy_kind

SENTENCE = re.compile(
    r"Stage experts: .+ cannot run the op QuantizedMoE of the node inner\.expert .+--engine experts=KIND"
)


class Experts(torch.nn.Module):
    """INT8 experts, which neither ONNX Runtime nor the toy kind runs."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_up = torch.nn.Parameter(torch.empty(2, 64, 32, dtype=torch.uint8), requires_grad=False)
        self.gate_up_scale = torch.nn.Parameter(torch.empty(2, 64, 1))
        self.down = torch.nn.Parameter(torch.empty(2, 32, 32, dtype=torch.uint8), requires_grad=False)
        self.down_scale = torch.nn.Parameter(torch.empty(2, 32, 1))

    def forward(self, x: Any) -> Any:
        return quantized_moe(
            x,
            x[..., :2].reshape(-1, 2),
            self.gate_up,
            self.gate_up_scale,
            self.down,
            self.down_scale,
            1,
            True,
            1,
        )


class Inner(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expert = Experts()

    def forward(self, x: Any) -> Any:
        return self.expert(x)


class Module(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Any) -> Any:
        return (self.inner(x),)


EXPERTS = Stage(
    "experts",
    Module,
    (TensorSpec("x", "float32", ("batch", "tokens", 32)),),
    (TensorSpec("y", "float32", ("batch", "tokens", 32)),),
    (),
    example=lambda: {"x": np.zeros((2, 3, 32), np.float32)},
    weights=lambda checkpoint: {},
    configuration=None,
)


@pytest.fixture
def with_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checkpoint has a further stage with a form that no kind covers."""
    for module in (planning, building):
        stages = module.stages
        monkeypatch.setattr(module, "stages", lambda config, stages=stages: (*stages(config), EXPERTS))
    monkeypatch.setitem(builders._MODULES, numpy_kind.KIND, numpy_kind.__name__)


@pytest.mark.parametrize("kind", [*builder_kinds(), numpy_kind.KIND])
def test_every_kind_refuses_in_the_plan_and_in_the_build_before_weights_are_read(
    with_experts: None, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    never_read(monkeypatch)
    with pytest.raises(UnsupportedTarget) as planned:
        planning.plan(tiny_checkpoint, engine=kind)
    with pytest.raises(UnsupportedTarget) as built:
        building.build(tiny_checkpoint, tmp_path / "bundle", engine=kind, cache=tmp_path / "cache")
    assert SENTENCE.search(str(planned.value)) and str(planned.value) == str(built.value)
    assert not (tmp_path / "bundle").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"engine": "tensorflow"}, "Unknown engine 'tensorflow'; expected one of onnxruntime"),
        ({"engine": {"talker": "tensorflow"}}, "Unknown engine 'tensorflow'"),
        (
            {"engine": {"speaker": "onnxruntime"}},
            "no stage 'speaker' to choose an engine for; its stages are audio_encoder",
        ),
        ({"target": "sm90"}, "Unknown target 'sm90'; expected one of cpu"),
        ({"precision": "int3"}, "Unknown precision 'int3'; expected one of fp32"),
    ],
)
def test_what_is_not_there_is_said_by_plan_and_build_alike(
    tiny_checkpoint: Path, tmp_path: Path, asked: dict[str, Any], sentence: str
) -> None:
    for make in (
        lambda: planning.plan(tiny_checkpoint, **asked),
        lambda: building.build(tiny_checkpoint, tmp_path / "bundle", **asked),
    ):
        with pytest.raises(UnsupportedTarget, match=re.escape(sentence)):
            make()


def test_a_stage_whose_loop_is_described_has_the_interface_of_the_loop(tiny_checkpoint: Path) -> None:
    from antiphon.graphs.checkpoints.read_config import read_config
    from antiphon.graphs.families.registry import stages

    for stage in stages(read_config(tiny_checkpoint)):
        step = dataclasses.replace(stage, loop=None)
        assert (stage.interface == step.interface) == (stage.loop is None)


@pytest.mark.parametrize(
    ("head_dim", "reason"), [(64, None), (12, "its heads have 12 values, expected a multiple of 8")]
)
def test_a_head_size_that_the_kernel_refuses_at_its_first_run_is_refused_before_any_work(
    head_dim: int, reason: str | None
) -> None:
    from antiphon.plugins.attention.lower_onnxruntime import refuses
    from antiphon.plugins.op_form import OpForm

    form = OpForm(
        "Attention",
        "layers.0.attention",
        (("num_heads", 4),),
        (("past_key", "float32", (1, 2, 7, head_dim)),),
    )
    assert refuses(form) == reason


@pytest.mark.parametrize("engine", [None, 3, ["onnxruntime"]])
def test_an_engine_that_is_no_name_is_one_sentence(
    tiny_checkpoint: Path, tmp_path: Path, engine: Any
) -> None:
    with pytest.raises(
        InvalidInput, match="expected the name of an engine kind, or a mapping of stage to kind"
    ):
        building.build(tiny_checkpoint, tmp_path / "bundle", engine=engine)


def test_a_kind_from_outside_brings_its_own_targets(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(builders._MODULES, numpy_kind.KIND, numpy_kind.__name__)
    monkeypatch.setattr(numpy_kind.NumpyBuilder, "targets", lambda self: ("abacus",))
    kinds = {"*": numpy_kind.KIND}
    assert planning.plan(tiny_checkpoint, engine=kinds, target="abacus").rows[0].engine == numpy_kind.KIND
    with pytest.raises(UnsupportedTarget, match="Unknown target 'abacus'; expected one of cpu"):
        planning.plan(tiny_checkpoint, target="abacus")
