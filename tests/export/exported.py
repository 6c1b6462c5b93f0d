"""The stages of the tiny bundle, opened for inspection and run tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.layers.decoder_specs import greedy_sampling
from antiphon.graphs.stage import Stage
from antiphon.runtime.bundle.specs import StageEntry
from antiphon.runtime.engines.onnxruntime.library import onnxruntime
from antiphon.runtime.engines.onnxruntime.sessions import make_session

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Exported:
    """One stage: its description, its checkpoint and the folder with portable.onnx,
    engine.onnx and weights.bin.
    """

    stage: Stage
    checkpoint: Checkpoint
    folder: Path
    entry: StageEntry | None = None

    @cached_property
    def portable(self) -> onnxruntime.InferenceSession:
        return make_session(self.folder / "portable.onnx")

    @cached_property
    def engine(self) -> onnxruntime.InferenceSession:
        return make_session(self.folder / "engine.onnx")

    def graph(self, file: str = "portable.onnx") -> onnx.ModelProto:
        return onnx.load(self.folder / file, load_external_data=False)

    @cached_property
    def module(self) -> Any:
        """The module with the checkpoint's weights."""
        module = self.stage.make_module().eval().requires_grad_(False)
        for name, source in self.stage.weights(self.checkpoint).items():
            value = source.assemble(*(self.checkpoint.read(tensor) for tensor in source.tensors))
            module.get_parameter(name).copy_(torch.from_numpy(np.array(value, np.float32)))
        return module

    def states(self, batch: int = 1, capacity: int = 24) -> Feeds:
        """Empty states by the name of the graph's inputs."""
        sizes = {"batch": batch, "capacity": capacity}
        shapes = {
            state.name: [sizes[axis] if isinstance(axis, str) else axis for axis in state.shape]
            for state in self.stage.states
        }
        return {f"past.{name}": np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def run_module(self, feeds: Mapping[str, np.ndarray]) -> Feeds:
        names = [spec.name for spec in self.stage.inputs] + [
            f"past.{state.name}" for state in self.stage.states
        ]
        results = self.module(*(torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in names))
        outputs = [spec.name for spec in self.stage.outputs] + [
            f"present.{state.name}" for state in self.stage.states
        ]
        return {name: value.numpy() for name, value in zip(outputs, results, strict=True)}


def run(found: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray]) -> Feeds:
    return dict(zip([node.name for node in found.get_outputs()], found.run(None, dict(feeds)), strict=True))


def carried(outputs: Mapping[str, np.ndarray]) -> Feeds:
    """The states a run wrote, as inputs of the next."""
    return {
        name.replace("present.", "past.", 1): value
        for name, value in outputs.items()
        if name.startswith("present.")
    }


def decoder_feeds(
    name: str,
    exported: Exported,
    lengths: list[int],
    past: list[int],
    seed: int = 0,
    tokens: int | None = None,
) -> Feeds:
    """Random inputs of thinker or talker for one call, without states:
    every row is wanted, every kind of row occurs.
    """
    config, random = exported.checkpoint.config, np.random.default_rng(seed)
    assert config.talker is not None
    batch, tokens = len(lengths), tokens or max(lengths)
    total, hidden = batch * tokens, config.thinker.text.hidden_size

    def rows(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    index = np.sort(random.choice(total, (total + 1) // 2, replace=False))
    feeds = {
        "positions": np.cumsum(random.choice([0, 1, 1.04], (3, batch, tokens)), axis=2).astype(np.float32)
        + np.array(past, np.float32)[:, None],
        "query_length": np.array(lengths),
        "past_length": np.array(past),
        "output_index": np.arange(total),
    }
    if name == "thinker":
        visual, layers = index[len(index) // 2 :], len(config.thinker.vision.deepstack_visual_indexes)
        feeds["input_ids"] = random.integers(0, config.thinker.text.vocab_size, (batch, tokens))
        feeds |= {"features": rows(len(index), hidden), "feature_index": index}
        if layers:
            feeds |= {"deepstack": rows(layers, len(visual), hidden), "deepstack_index": visual}
        return feeds | greedy_sampling(total, config.thinker.text.vocab_size)
    text = config.talker.text
    feeds |= {
        "text_ids": random.integers(-1, 50, (batch, tokens)),
        "codec_ids": random.integers(-1, 50, (batch, tokens)),
    }
    feeds |= {
        "hidden": rows(len(index), hidden),
        "hidden_index": index,
        "frame_rows": rows(len(index), text.hidden_size),
        "frame_index": index[::-1].copy(),
    }
    return feeds | greedy_sampling(total, text.vocab_size)


def step_feeds(exported: Exported, batch: int, step: int, code: np.ndarray, hidden: np.ndarray) -> Feeds:
    """Inputs of the predictor's portable step, without states."""
    rows = hidden[:, None] if step == 0 else hidden[:, None][:, :0]
    codebook = int(exported.stage.constants["codebook_size"])
    past = np.full(batch, step + 1 if step else 0)
    return {"hidden": rows, "code": code, "step": np.array([step]), "past_length": past} | greedy_sampling(
        batch, codebook
    )


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Equal up to `tolerance` of the largest expected value."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * max(1e-3, float(np.abs(expected).max(initial=0)))
    )
