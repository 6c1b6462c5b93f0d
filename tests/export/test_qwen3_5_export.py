"""The decoder stages of Qwen3.5-Omni as graphs:
plain ONNX Runtime and the lowered engines give what the modules give.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("transformers")

import onnx_ir as ir

from antiphon.export.engines.onnxruntime.lower import lower
from antiphon.export.portable import export_portable
from antiphon.export.verify.probes import probes
from antiphon.export.weights import write_weights
from antiphon.graphs.families.qwen3_5_omni.talker import talker_stage
from antiphon.graphs.stage import Stage, WeightSource
from antiphon.graphs.stages.mtp import mtp_stage
from antiphon.graphs.stages.predictor import predictor_stage
from antiphon.graphs.stages.thinker import thinker_stage
from antiphon.plugins.registry import DOMAIN

from ..graphs.qwen3_5_pair import CODEBOOK, CODEC_VOCAB, EXPERTS, GROUPS, decoder, omni_config
from .exported import Exported, Feeds, carried, close, run, step_feeds

LINEAR, FULL = "linear_attention", "full_attention"
THINKER = decoder((LINEAR, LINEAR, FULL), **EXPERTS)
TALKER = decoder((FULL, LINEAR), (2, 2, 4, 4, 3), attention_bias=True, hidden_size=20, vocab_size=CODEC_VOCAB)
STAGES = {"thinker": thinker_stage, "mtp": mtp_stage, "talker": talker_stage, "predictor": predictor_stage}
DECODERS = ("thinker", "mtp", "talker")
DECODER_OPS = {"Attention", "CausalConvState", "GatedDeltaRule", "SampleToken"}
USED_OPS = {
    "thinker": DECODER_OPS | {"MoE"},
    "mtp": {"Attention", "MoE"},
    "talker": DECODER_OPS,
    "predictor": {"Attention", "SampleToken"},
}


def with_random_weights(stage: Stage) -> Stage:
    """The stage with sources that read nothing:
    how weights are made from a checkpoint is tested with the modules.
    """
    random, sources = np.random.default_rng(0), {}
    for name, parameter in stage.make_module().named_parameters():
        array = random.normal(size=tuple(parameter.shape)) * (
            0.4 if parameter.ndim == 1 else parameter.shape[-2 if parameter.ndim == 2 else -1] ** -0.5
        )
        value = (
            -np.abs(array)
            if name.endswith("decay_scale")
            else array + 1
            if name.endswith("norm.weight")
            else array
        ).astype(np.float32)
        sources[name] = WeightSource((), lambda value=value: value)
    return dataclasses.replace(stage, weights=lambda _: sources)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """The stages with portable graph, engine and weights in folders of their own."""
    config, found = omni_config(THINKER, TALKER, accept_hidden_layer=2), {}
    for name, make in STAGES.items():
        stage, folder = with_random_weights(make(config)), tmp_path_factory.mktemp(name)
        checkpoint: Any = None
        model = export_portable(stage)
        write_weights(model, stage.weights(checkpoint), checkpoint, folder / "weights.bin")
        ir.save(model, folder / "portable.onnx")
        ir.save(lower(stage, model).graph, folder / "engine.onnx")
        found[name] = Exported(stage, checkpoint, folder)
    return found


@pytest.mark.parametrize("name", list(STAGES))
def test_portable_graph_passes_the_checker_and_engine_has_no_op_of_ours(
    made: dict[str, Exported], name: str
) -> None:
    onnx.checker.check_model(str(made[name].folder / "portable.onnx"), full_check=True)
    portable, engine = made[name].graph(), made[name].graph("engine.onnx")
    used = {node.op_type for node in portable.graph.node if node.domain == DOMAIN}
    assert used == {function.name for function in portable.functions} == USED_OPS[name]
    assert not engine.functions and not any(node.domain == DOMAIN for node in engine.graph.node)
    assert len(portable.graph.input) == len(made[name].stage.inputs) + len(made[name].stage.states)


@pytest.mark.parametrize("name", DECODERS)
def test_graphs_equal_the_module_in_prefill_chunk_step_and_drawn_chunk(
    made: dict[str, Exported], name: str
) -> None:
    found, calls = made[name], probes(made[name].stage)
    states = {kind: found.states(capacity=40) for kind in ("module", "portable", "engine")}
    for feeds in calls:
        results = {
            "module": found.run_module(feeds | states["module"]),
            "portable": run(found.portable, feeds | states["portable"]),
            "engine": run(found.engine, feeds | states["engine"]),
        }
        for kind, result in results.items():
            states[kind] = carried(result)
            for output, expected in results["module"].items():
                visible = int((feeds["past_length"] + feeds["query_length"])[0])
                rows = (
                    (slice(None), slice(None), slice(visible))
                    if output.startswith(("present.key", "present.value"))
                    else ()
                )
                close(result[output][rows], expected[rows])


@pytest.mark.parametrize("name", DECODERS)
def test_graphs_equal_the_module_for_ragged_streams(made: dict[str, Exported], name: str) -> None:
    """Two streams of different length, then steps in which one rests."""
    found = made[name]
    states = {kind: found.states(batch=2) for kind in ("module", "portable", "engine")}
    past = np.zeros(2, np.int64)
    for seed, lengths in enumerate(([6, 3], [1, 1], [1, 0], [0, 1])):
        feeds = ragged(found, lengths, past, seed)
        results = {
            "module": found.run_module(feeds | states["module"]),
            "portable": run(found.portable, feeds | states["portable"]),
            "engine": run(found.engine, feeds | states["engine"]),
        }
        past = past + lengths
        for kind, result in results.items():
            states[kind] = carried(result)
            for output, expected in results["module"].items():
                if not output.startswith(("present.key", "present.value")):
                    tokens = max(lengths)
                    valid = [
                        row * tokens + token for row, length in enumerate(lengths) for token in range(length)
                    ]
                    is_by_row = output in ("token", "logits", "output_hidden")
                    close(
                        result[output][valid] if is_by_row else result[output],
                        expected[valid] if is_by_row else expected,
                    )


def ragged(found: Exported, lengths: list[int], past: np.ndarray, seed: int) -> Feeds:
    """The probe of a stage as two rows of ids, without scattered rows;
    the rest as the stage's inputs ask for.
    """
    tokens, random = max(lengths), np.random.default_rng(seed)
    example = found.stage.example()
    feeds: Feeds = {}
    for spec in found.stage.inputs:
        sizes = {"batch": 2, "tokens": tokens, "rows": 2 * tokens}
        shape = [sizes.get(axis, 0) if isinstance(axis, str) else axis for axis in spec.shape]
        feeds[spec.name] = (
            np.zeros(shape, spec.dtype)
            if example[spec.name].dtype != np.int64
            else random.integers(0, 20, shape)
        )
    positions = past.astype(np.float32)[:, None] + np.arange(tokens, dtype=np.float32)
    feeds |= {
        "positions": positions[None].repeat(3, 0),
        "query_length": np.array(lengths),
        "past_length": past,
        "output_index": np.arange(2 * tokens),
    }
    if "hidden" in feeds:
        feeds["hidden"] = random.normal(size=feeds["hidden"].shape).astype(np.float32)
    if "top_p" in feeds:
        feeds |= {
            "top_p": np.ones(2 * tokens, np.float32),
            "repetition_penalty": np.ones(2 * tokens, np.float32),
            "top_k": np.zeros(2 * tokens, np.int64),
        }
    return feeds


def test_predictor_graphs_equal_the_module_step_by_step_and_as_a_frame(made: dict[str, Exported]) -> None:
    found, frames = made["predictor"], probes(made["predictor"].stage)
    for feeds in frames:
        frame = run(found.engine, feeds)
        states, codes = (
            {kind: found.states(capacity=GROUPS) for kind in ("module", "portable")},
            frame["codes"],
        )
        rows = np.zeros((1, TALKER.hidden_size), np.float32)
        for step in range(GROUPS - 1):
            call = step_feeds(found, 1, step, codes[:, step], feeds["hidden"])
            expected, portable = (
                found.run_module(call | states["module"]),
                run(found.portable, call | states["portable"]),
            )
            states = {"module": carried(expected), "portable": carried(portable)}
            for output in expected:
                close(portable[output], expected[output])
            close(frame["logits"][:, step], expected["logits"])
            rows += expected["code_row"]
        last = found.module.code_embedding.numpy()[codes[:, -1] + (GROUPS - 1) * CODEBOOK]
        close(frame["frame_row"], rows + last)


@pytest.mark.parametrize(
    ("name", "full", "sparse"),
    [("thinker", 1, 3), ("mtp", 1, 1), ("talker", 1, 0), ("predictor", 2 * (GROUPS - 1), 0)],
)
def test_full_attention_is_one_kernel_and_turns_queries_and_keys_together(
    made: dict[str, Exported], name: str, full: int, sparse: int
) -> None:
    ops = Counter(node.op_type for node in made[name].graph("engine.onnx").graph.node)
    assert ops["GroupQueryAttention"] == ops["RotaryEmbedding"] == full and ops["MoE"] == sparse
