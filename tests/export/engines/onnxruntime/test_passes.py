"""Each graph pass by itself, on the smallest graph that shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import onnx_ir as ir

from antiphon.export.engines.onnxruntime.passes.external_slices import slice_external
from antiphon.export.engines.onnxruntime.passes.fuse_skip_norm import fuse_skip_norm
from antiphon.export.engines.onnxruntime.passes.replace_ops import replace_ops
from antiphon.plugins import onnx_domain
from antiphon.plugins.moe.lower_onnxruntime import lower as lower_moe
from antiphon.plugins.registry import DOMAIN, OPS

from ...exported import carried, close, run, step_feeds
from ...hand_made import execute, normal, ops, parse

TWO_OPS = """g (float[r, 4] x, float[r, 3] logits, float[3, 4, 4] gate_up, float[3, 4, 2] down, float[r] n, \
float[r] t, int64[r] k, float[r] p, float[r] rp,
    bool[r, 4] pen, bool[r, 4] sup) => (int64[r] token) {
    y = ai.antiphon.MoE <top_k = 2, normalize = 1> (x, logits, gate_up, down)
    z = ai.antiphon.MoE <top_k = 1, normalize = 0> (y, logits, gate_up, down)
    token = ai.antiphon.SampleToken (z, n, t, k, p, rp, pen, sup) }"""


def test_replace_ops_replaces_what_has_a_lowering_and_keeps_the_rest_with_its_function() -> None:
    for op in OPS.values():
        onnx_domain.schema(op)
    model = parse(TWO_OPS, "MoE", "SampleToken")
    rows = np.zeros(5, np.float32)
    feeds = {
        "x": normal(5, 4),
        "logits": normal(5, 3, seed=1),
        "gate_up": normal(3, 4, 4, seed=2),
        "down": normal(3, 4, 2, seed=3),
        "n": rows,
        "t": rows,
    }
    feeds |= {
        "k": np.zeros(5, np.int64),
        "p": rows + 1,
        "rp": rows + 1,
        "pen": np.zeros((5, 4), bool),
        "sup": np.zeros((5, 4), bool),
    }
    (expected,) = execute(model, **feeds)
    assert replace_ops(model, {"MoE": lower_moe}) == 2
    assert ops(model) == ["MoE", "MoE", "SampleToken"] and [node.domain for node in model.graph] == [
        "com.microsoft",
        "com.microsoft",
        DOMAIN,
    ]
    assert [identifier[1] for identifier in model.functions] == ["SampleToken"]
    assert model.opset_imports["com.microsoft"] == 1 and model.opset_imports[DOMAIN] == 1
    np.testing.assert_array_equal(execute(model, **feeds)[0], expected)
    assert replace_ops(model, {"MoE": lower_moe}) == 0


def test_replace_ops_forgets_the_domain_when_no_op_of_it_is_left_and_keeps_names_and_shapes() -> None:
    node = "y = ai.antiphon.MoE <top_k = 2, normalize = 1> (x, l, u, d)"
    model = parse(
        "g (float[r, 4] x, float[r, 3] l, float[3, 4, 4] u, "
        f"float[3, 4, 2] d) => (float[r, 4] y) {{ {node} }}",
        "MoE",
    )
    replace_ops(model, {"MoE": lower_moe})
    assert DOMAIN not in model.opset_imports and not model.functions
    assert model.graph.outputs[0].name == "y" and list(model.graph.outputs[0].shape or ()) == ["r", 4]


def residual(
    first: str,
    second: str,
    norm: str = "<axis = -1, epsilon = 0.001>",
    out: str = "float[b, t, 8] y",
    weight: str = "float[8] w",
) -> ir.Model:
    return parse(
        f"g ({first} x, {second} r, {weight}) => ({out}) {{ s = Add (x, r)  n = RMSNormalization {norm} "
        f"(s, w)  y = Add (n, s) }}"
    )


def test_fuse_skip_norm_fuses_addition_and_norm_and_hands_the_sum_on() -> None:
    model = residual("float[b, t, 8]", "float[b, t, 8]")
    feeds = {"x": normal(2, 3, 8), "r": normal(2, 3, 8, seed=1), "w": normal(8, seed=2)}
    expected = execute(model, **feeds)[0]
    assert fuse_skip_norm(model) == 1
    assert (
        ops(model) == ["SkipSimplifiedLayerNormalization", "Add"]
        and model.opset_imports["com.microsoft"] == 1
    )
    close(execute(model, **feeds)[0], expected)
    assert fuse_skip_norm(model) == 0


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: residual("float[b, t, 8]", "float[8]"), id="the residual is broadcast"),
        pytest.param(lambda: residual("float[b, t, 8]", "float[1, t, 8]"), id="one row for all streams"),
        pytest.param(
            lambda: residual("float[t, 8]", "float[t, 8]", out="float[t, 8] y"), id="two dimensions"
        ),
        pytest.param(
            lambda: residual("float[?, ?, 8]", "float[?, ?, 8]", out="float[?, ?, 8] y"), id="unknown sizes"
        ),
        pytest.param(
            lambda: residual("float[b, t, 8]", "float[b, t, 8]", out="float[b, t, 8] y, float[b, t, 8] s"),
            id="the sum is put out",
        ),
        pytest.param(
            lambda: residual(
                "float[b, 4, 8]", "float[b, 4, 8]", "<axis = 1>", "float[b, 4, 8] y", "float[4, 8] w"
            ),
            id="norm over two axes",
        ),
    ],
)
def test_fuse_skip_norm_leaves_alone_what_the_kernel_cannot_do(model: Any) -> None:
    found = model()
    before = ops(found)
    assert fuse_skip_norm(found) == 0 and ops(found) == before


def test_fuse_skip_norm_leaves_the_nodes_in_order_when_the_sum_is_read_before_the_norm() -> None:
    outputs = "float[b, t, 8] y, float[b, t, 8] z"
    model = parse(
        f"g (float[b, t, 8] x, float[b, t, 8] r, float[8] w) => ({outputs}) {{ s = Add (x, r)  z = Neg "
        f"(s)  y = RMSNormalization (s, w) }}"
    )
    feeds = {"x": normal(2, 3, 8), "r": normal(2, 3, 8, seed=1), "w": normal(8, seed=2)}
    expected = execute(model, **feeds)
    assert fuse_skip_norm(model) == 1 and ops(model) == ["SkipSimplifiedLayerNormalization", "Neg"]
    onnx.checker.check_model(ir.serde.serialize_model(model))
    for found, wanted in zip(execute(model, **feeds), expected, strict=True):
        close(found, wanted)


def test_fuse_skip_norm_asks_for_the_norm_and_the_sum_alone() -> None:
    model = residual("float[b, t, 8]", "float[b, t, 8]")
    fuse_skip_norm(model)
    assert [value.name for value in model.graph[0].outputs] == ["n", "", "", "s"]


def test_fuse_skip_norm_takes_the_default_epsilon_of_the_norm() -> None:
    model = residual("float[b, t, 8]", "float[b, t, 8]", "<axis = -1>")
    feeds = {"x": normal(1, 2, 8) * 1e-3, "r": normal(1, 2, 8, seed=1) * 1e-3, "w": normal(8, seed=2)}
    expected = execute(model, **feeds)[0]
    assert fuse_skip_norm(model) == 1
    close(execute(model, **feeds)[0], expected)


def test_slice_external_is_a_view_of_one_index(tmp_path: Path) -> None:
    values = normal(4, 3, 5)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 64 + values.tobytes())
    whole = ir.ExternalTensor(
        "weights.bin",
        64,
        values.nbytes,
        ir.DataType.FLOAT,
        shape=ir.Shape([4, 3, 5]),
        name="whole",
        base_dir=tmp_path,
    )
    for index in range(4):
        part = slice_external(whole, index, f"whole.{index}")
        assert (part.name, list(part.shape), part.offset, part.length) == (
            f"whole.{index}",
            [3, 5],
            64 + 60 * index,
            60,
        )
        np.testing.assert_array_equal(part.numpy(), values[index])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_unrolled_frame_equals_15_portable_steps(exported: Any, batch: int, temperature: float) -> None:
    found, random = exported["predictor"], np.random.default_rng(batch)
    hidden, code = (
        normal(batch, found.stage.constants["hidden_size"]),
        random.integers(0, found.stage.constants["codebook_size"], batch),
    )
    noise = random.random((batch, 15)).astype(np.float32)
    sampling = {
        "temperature": np.full(batch, temperature, np.float32),
        "top_k": np.full(batch, 20),
        "top_p": np.full(batch, 0.9, np.float32),
    }
    frame = run(found.engine, {"hidden": hidden, "code0": code, "noise": noise, **sampling})
    states, codes, logits, rows = found.states(batch, 16), [code], [], []
    for step in range(15):
        results = run(
            found.portable,
            step_feeds(found, batch, step, codes[-1], hidden) | states | sampling | {"noise": noise[:, step]},
        )
        states = carried(results)
        codes.append(results["token"])
        logits.append(results["logits"])
        rows.append(results["code_row"])
    rows.append(
        run(
            found.portable,
            step_feeds(found, batch, 15 - 1, codes[-1] + found.stage.constants["codebook_size"], hidden)
            | states,
        )["code_row"]
    )
    np.testing.assert_array_equal(frame["codes"], np.stack(codes, axis=1))
    close(frame["logits"], np.stack(logits, axis=1))
    close(frame["frame_row"], np.sum(rows, axis=0), 1e-6)
    assert frame["codes"].shape == (batch, 16) and len({tuple(row) for row in frame["codes"]}) == batch


@pytest.mark.parametrize(("name", "count"), [("thinker", 1), ("predictor", 0)])
def test_only_an_unrolled_frame_has_no_padding_rows_to_blank_behind_attention(
    exported: Any, name: str, count: int
) -> None:
    graph = exported[name].graph("engine.onnx").graph
    attention = {node.output[0] for node in graph.node if node.op_type == "GroupQueryAttention"}
    blanked = [node for node in graph.node if node.op_type == "Where" and attention & set(node.input)]
    assert attention and len(blanked) == count * len(attention)
