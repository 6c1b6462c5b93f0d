"""One stage's module beside the reference class it must equal, both with the same random weights,
and the module's ONNX export.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from antiphon.graphs.stage import Stage
from antiphon.runtime.engines.onnxruntime.library import onnxruntime


class FakeCheckpoint:
    """Tensors of a reference model in memory, under the names they are published with:
    `prefix` and the model's own.
    """

    def __init__(self, reference: Any, prefix: str) -> None:
        self.tensors = {prefix + name: tensor.numpy() for name, tensor in reference.state_dict().items()}

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def has(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape


def randomise(module: Any, seed: int) -> None:
    """Random values everywhere, biases and norms too, so that no parameter can be left out unseen."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        scale = 1.0 if parameter.ndim == 1 else 1.5 / (parameter[0].numel() ** 0.5)
        parameter.data = (
            torch.randn(parameter.shape, generator=generator)
            * scale
            * (0.3 if name.endswith("bias") else 1.0)
        )


def load_module(stage: Stage, checkpoint: Any) -> Any:
    """The stage's module in float32 with every parameter made from the checkpoint, as a build makes it."""
    module, sources = stage.make_module().eval().requires_grad_(False), stage.weights(checkpoint)
    parameters = dict(module.named_parameters())
    assert set(sources) == set(parameters)
    for name, source in sources.items():
        value = source.assemble(*(checkpoint.read(tensor) for tensor in source.tensors))
        assert value.shape == tuple(parameters[name].shape), name
        parameters[name].data = torch.from_numpy(np.array(value, np.float32))
    return module


def load_reference_weights(stage: Stage, reference: Any, prefix: str) -> Any:
    """The stage's module with the weights of `reference`, all of which must be used."""
    checkpoint = FakeCheckpoint(reference, prefix)
    module = load_module(stage, checkpoint)
    assert {tensor for source in stage.weights(checkpoint).values() for tensor in source.tensors} == set(
        checkpoint.tensors
    )
    return module


def zero_states(stage: Stage, batch: int) -> list[torch.Tensor]:
    """Empty states of a stage whose states have no axis but the batch."""
    return [
        torch.zeros(*(batch if axis == "batch" else int(axis) for axis in state.shape))
        for state in stage.states
    ]


def export(stage: Stage, module: Any, device: str = "cpu") -> torch.onnx.ONNXProgram:
    """The module exported at the sizes of the stage's example, with every named axis free."""
    example = [torch.from_numpy(value).to(device) for value in stage.example().values()]
    states = [state.to(device) for state in zero_states(stage, len(example[0]))] if stage.states else []
    axes = [
        {place: axis for place, axis in enumerate(value.shape) if isinstance(axis, str)}
        for value in (*stage.inputs, *stage.states)
    ]
    count = len(stage.inputs)
    program = torch.onnx.export(
        module,
        (*example, *states),
        dynamo=True,
        opset_version=24,
        verbose=False,
        optimize=False,
        dynamic_shapes=(*axes[:count], tuple(axes[count:])) if states else tuple(axes),
        input_names=[
            *(spec.name for spec in stage.inputs),
            *(f"past.{state.name}" for state in stage.states),
        ],
        output_names=[
            *(spec.name for spec in stage.outputs),
            *(f"present.{state.name}" for state in stage.states),
        ],
    )
    assert program is not None
    return program


def exported_session(stage: Stage, module: Any, folder: Path) -> onnxruntime.InferenceSession:
    """A session on the exported module."""
    export(stage, module).save(folder / "module.onnx")
    return onnxruntime.InferenceSession(folder / "module.onnx", providers=["CPUExecutionProvider"])


def relative_error(found: Any, expected: Any) -> float:
    """Largest difference over the largest expected value; a row of zeros must be met to 1e-11."""
    found, expected = (
        value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value) for value in (found, expected)
    )
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-6))


def check_example_axes(stage: Stage) -> None:
    """The example has the inputs of the stage, and every named axis of it a size of its own, at least 2."""
    example = stage.example()
    assert list(example) == [spec.name for spec in stage.inputs]
    sizes: dict[str, int] = {}
    for spec in stage.inputs:
        assert example[spec.name].dtype == spec.dtype
        for axis, size in zip(spec.shape, example[spec.name].shape, strict=True):
            assert sizes.setdefault(axis, size) == size if isinstance(axis, str) else axis == size
    assert min(sizes.values()) >= 2
    assert len(set(sizes.values())) == len(sizes)
