"""The engines for ONNX Runtime against the portable graphs, teacher-forced;
and what makes a step cheap, held by structure.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from antiphon.plugins.registry import DOMAIN
from antiphon.runtime.engines.onnxruntime.engine import OnnxEngine
from antiphon.runtime.engines.onnxruntime.sessions import make_session
from antiphon.runtime.states.pool import Slot

from ...exported import Exported, carried, close, decoder_feeds, run

DECODERS = ("thinker", "talker")


def layers(exported: Exported) -> int:
    return len(exported.stage.states) // 2


@pytest.mark.parametrize("name", [*DECODERS, "predictor"])
def test_no_op_of_ours_is_left_and_attention_and_experts_are_contrib_kernels(
    exported: Any, name: str
) -> None:
    model = exported[name].graph("engine.onnx")
    ops = Counter((node.domain, node.op_type) for node in model.graph.node)
    steps = 15 if name == "predictor" else 1
    assert not model.functions and not any(domain == DOMAIN for domain, _ in ops)
    assert ops["com.microsoft", "GroupQueryAttention"] == layers(exported[name]) * steps
    assert ops["com.microsoft", "MoE"] == (0 if name == "predictor" else layers(exported[name]))
    # Not fused: in the Thinker deepstack rows come in between, and the tapped rows are put out with axis
    # names of their own; the predictor norms one row.
    fused = 2 * layers(exported[name]) - {"thinker": 3, "talker": 0, "predictor": 1}[name]
    assert ops["com.microsoft", "SkipSimplifiedLayerNormalization"] == fused * steps
    assert ops["", "TensorScatter"] == ops["", "Attention"] == 0


@pytest.mark.parametrize("name", [*DECODERS, "predictor"])
def test_engine_uses_the_weights_of_the_portable_graph_where_they_lie(exported: Any, name: str) -> None:
    def ranges(file: str, left_out: tuple[str, ...] = ()) -> list[tuple[int, int]]:
        found = []
        for tensor in exported[name].graph(file).graph.initializer:
            where = {entry.key: entry.value for entry in tensor.external_data}
            if tensor.name.endswith(left_out):
                continue
            if where:
                assert where["location"] == "weights.bin"
                found.append((int(where["offset"]), int(where["offset"]) + int(where["length"])))
            else:
                assert len(tensor.SerializeToString()) < 20_000
        return sorted(found)

    portable, engine = ranges("portable.onnx"), ranges("engine.onnx")
    assert all(before[1] <= after[0] for before, after in zip(engine, engine[1:], strict=False)), (
        "a weight is referred to twice"
    )
    assert all(any(start <= first and last <= end for start, end in portable) for first, last in engine)
    # The norms of query and key heads are the one exception: together they become a small table.
    unfused = ranges("portable.onnx", ("query_norm.weight", "key_norm.weight"))
    assert sum(end - start for start, end in engine) == sum(end - start for start, end in unfused)


@pytest.mark.parametrize("name", list(DECODERS))
def test_engine_equals_the_portable_graph_in_prefill_chunk_and_decode(exported: Any, name: str) -> None:
    found, states, past = (
        exported[name],
        {"portable": exported[name].states(), "engine": exported[name].states()},
        0,
    )
    for seed, tokens in enumerate((9, 4, 1, 1, 3)):
        feeds, results = decoder_feeds(name, found, [tokens], [past], seed), {}
        for kind in states:
            results[kind] = run(getattr(found, kind), feeds | states[kind])
            states[kind] = carried(results[kind])
        for output in results["portable"]:
            if not output.startswith("present."):
                close(results["engine"][output], results["portable"][output])
        past += tokens
        for state in states["portable"]:
            close(states["engine"][state][:, :, :past], states["portable"][state][:, :, :past])


@pytest.mark.parametrize("name", list(DECODERS))
def test_engine_equals_the_portable_graph_for_ragged_streams(exported: Any, name: str) -> None:
    """A prefill with padding, then steps in which one stream may rest:
    everything but the invisible cache is equal.
    """
    found, states, past = (
        exported[name],
        {"portable": exported[name].states(3), "engine": exported[name].states(3)},
        np.zeros(3, np.int64),
    )
    for seed, (tokens, lengths) in enumerate(
        ((6, [5, 2, 4]), (1, [1, 1, 1]), (1, [1, 0, 1]), (1, [0, 1, 1]))
    ):
        feeds, results = decoder_feeds(name, found, lengths, list(past), seed, tokens), {}
        for kind in states:
            results[kind] = run(getattr(found, kind), feeds | states[kind])
            states[kind] = carried(results[kind])
        past = past + lengths
        for output in ("token", "logits", "hidden" if name == "thinker" else "output_hidden"):
            close(results["engine"][output], results["portable"][output])
        for state in states["portable"]:
            for stream, visible in enumerate(past):
                close(
                    states["engine"][state][stream, :, :visible],
                    states["portable"][state][stream, :, :visible],
                )


def chosen_experts(found: Exported, feeds: dict[str, np.ndarray]) -> list[set[int]]:
    """The experts that any row of the call chooses, layer by layer."""
    seen: list[set[int]] = []

    def watch(block: Any) -> Any:
        return block.router.register_forward_hook(
            lambda _, __, logits: seen.append(set(logits.topk(block.top_k).indices.flatten().tolist()))
        )

    hooks = [watch(layer.feed_forward) for layer in found.module.layers]
    found.run_module(feeds)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", list(DECODERS))
def test_experts_that_no_row_chooses_are_not_read(exported: Any, name: str, tmp_path: Path) -> None:
    """Their weights on disk become NaN; a single product with them would show."""
    found = exported[name]
    feeds = decoder_feeds(name, found, [2], [0]) | found.states()
    expected, chosen = run(found.engine, feeds), chosen_experts(found, feeds)
    for file in ("engine.onnx", "weights.bin"):
        shutil.copy(found.folder / file, tmp_path / file)
    weights, poisoned = np.memmap(tmp_path / "weights.bin", np.uint8, "r+"), 0
    for tensor in found.graph("engine.onnx").graph.initializer:
        if tensor.name.endswith(("feed_forward.gate_up", "feed_forward.down")):
            where = {entry.key: entry.value for entry in tensor.external_data}
            values = (
                weights[int(where["offset"]) :][: int(where["length"])].view(np.float32).reshape(tensor.dims)
            )
            unchosen = sorted(set(range(tensor.dims[0])) - chosen[int(tensor.name.split(".")[1])])
            values[unchosen] = np.nan
            poisoned += len(unchosen)
    weights.flush()
    assert poisoned >= 2 * layers(found) * 4
    poisoned_run = run(make_session(tmp_path / "engine.onnx"), feeds)
    for output, value in expected.items():
        np.testing.assert_array_equal(poisoned_run[output], value)


def conversation(found: Exported, states: Slot, engine: OnnxEngine, name: str) -> list[np.ndarray]:
    """Logits of a prefill, a chunk and two steps through the runtime's engine."""
    logits = []
    for seed, tokens in enumerate((7, 3, 1, 1)):
        states.reserve(tokens)
        logits.append(
            engine.run(decoder_feeds(name, found, [tokens], [states.length], seed), (states,))["logits"]
        )
        states.advance(tokens)
    return logits


@pytest.mark.parametrize("name", list(DECODERS))
def test_cache_is_written_in_place_and_nothing_beyond_the_visible_rows_is_read(
    exported: Any, name: str
) -> None:
    """Past and present are one array, so that a step costs nothing per row of capacity;
    NaN beyond the visible rows stays where it is.
    """
    found = exported[name]
    engine = OnnxEngine(found.folder / "engine.onnx", found.entry)
    small, large = engine.new_states(1, 16).allocate(), engine.new_states(1, 4096).allocate()
    large.reserve(4000)
    assert large.capacity >= 4000 > small.capacity
    arrays = {state.name: large.past(state.name) for state in found.stage.states}
    for array in arrays.values():
        array[...] = np.nan
    for ours, theirs in zip(
        conversation(found, large, engine, name), conversation(found, small, engine, name), strict=True
    ):
        assert np.isfinite(ours).all()
        close(ours, theirs, 1e-6)
    for state, array in arrays.items():
        assert large.past(state) is large.present(state) is array
        assert np.isnan(array[:, :, 12:]).all() and np.isfinite(array[:, :, :12]).all()
        close(array[:, :, :12], small.past(state)[:, :, :12], 1e-6)
    before = {state: array.copy() for state, array in arrays.items()}
    engine.run(decoder_feeds(name, found, [1], [12]), (large,))
    for state, array in arrays.items():
        changed = np.flatnonzero((array != before[state]).any((0, 1, 3)) & np.isfinite(array).all((0, 1, 3)))
        assert changed.tolist() == [12]


def test_engine_graphs_have_the_interface_that_the_manifest_states(exported: Any) -> None:
    for found in exported.values():
        entry, graph = found.entry, found.graph("engine.onnx").graph
        assert entry is not None
        for values, specs, prefix in (
            (graph.input, entry.inputs, "past."),
            (graph.output, entry.outputs, "present."),
        ):
            expected = [(spec.name, spec.shape) for spec in specs] + [
                (prefix + state.name, state.shape) for state in entry.states
            ]
            assert [
                (
                    value.name,
                    tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim),
                )
                for value in values
            ] == expected
