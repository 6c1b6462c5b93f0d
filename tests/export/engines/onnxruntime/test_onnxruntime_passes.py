"""The passes that lean on ONNX Runtime's own kernels: the same results from fewer or leaner nodes,
and hands off everything else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import onnx_ir as ir

from antiphon.export.engines.onnxruntime.passes.flash_attention import flash_attention
from antiphon.export.engines.onnxruntime.passes.fuse_head_norms import fuse_head_norms
from antiphon.export.engines.onnxruntime.passes.share_sizes import share_sizes

from ...exported import close
from ...hand_made import execute, normal, ops, parse

DIM = 8
"""Size of a head."""
LAYER = ["Split", *["Reshape", "RMSNormalization", "Reshape", "RotaryEmbedding"] * 2, "Concat"]
FUSED = ["Split", "Reshape", "RMSNormalization", "Reshape", "RotaryEmbedding", "Split", "Concat"]


def projected(
    heads: int = 4,
    kv_heads: int = 2,
    key_tables: str = "cos, sin",
    key_epsilon: str = "epsilon = 0.001",
    extra: str = "",
    key_weight: str = "key_weight",
    turning: int = 0,
    key_turning: int | None = None,
    gated: bool = False,
) -> ir.Model:
    """Queries and keys of one projection, each normed by head and rotated, put out beside the values and,
    when `gated`, as many gates as queries.
    """
    sizes = [heads * DIM, kv_heads * DIM, kv_heads * DIM] + [heads * DIM] * gated
    table, partial = (turning or DIM) // 2, (turning, turning if key_turning is None else key_turning)
    query_turning, key_turning_text = (f", rotary_embedding_dim = {dim}" if dim else "" for dim in partial)
    parts = "v, gate" if gated else "v"
    weights = [", ".join(map(str, normal(DIM, seed=seed) + 1)) for seed in (8, 9)]
    return parse(f"""g (float[b, t, {sum(sizes)}] x, float[b, t, {table}] cos, float[b, t, {table}] sin, \
float[b, t, {table}] cos2, float[{DIM}] fed)
        => (float[b, t, {sum(sizes)}] y{", float[b, t, n] z" if extra else ""})
        <float[{DIM}] query_weight = {{{weights[0]}}}, float[{DIM}] key_weight = {{{weights[1]}}}, \
int64[{len(sizes)}] sizes = {{{", ".join(map(str, sizes))}}},
         int64[4] query_heads = {{0, 0, {heads}, {DIM}}}, int64[4] key_heads = {{0, 0, {kv_heads}, {DIM}}}, \
int64[3] flat = {{0, 0, -1}}> {{
        q, k, {parts} = Split <axis = 2> (x, sizes)
        q1 = Reshape (q, query_heads)
        q2 = RMSNormalization <axis = -1, epsilon = 0.001> (q1, query_weight)
        q3 = Reshape (q2, flat)
        q4 = RotaryEmbedding <num_heads = {heads}{query_turning}> (q3, cos, sin)
        k1 = Reshape (k, key_heads)
        k2 = RMSNormalization <axis = -1, {key_epsilon}> (k1, {key_weight})
        k3 = Reshape (k2, flat)
        k4 = RotaryEmbedding <num_heads = {kv_heads}{key_turning_text}> (k3, {key_tables})
        y = Concat <axis = 2> (q4, k4, {parts})
        {extra} }}""")


def projection_feeds(model: ir.Model, batch: int, tokens: int) -> dict[str, np.ndarray]:
    width, table = (int(model.graph.inputs[place].shape[2]) for place in (0, 1))  # type: ignore[arg-type, index]
    angles = normal(batch, tokens, table, seed=2) * 3
    feeds = {"x": normal(batch, tokens, width), "cos": np.cos(angles), "sin": np.sin(angles)}
    return feeds | {"cos2": np.cos(angles + 1), "fed": normal(DIM, seed=3)}


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (3, 1), (2, 5)])
def test_fuse_head_norms_gives_the_same_rows_with_fewer_nodes(
    heads: int, kv_heads: int, batch: int, tokens: int
) -> None:
    model = projected(heads, kv_heads)
    feeds = projection_feeds(model, batch, tokens)
    (expected,) = execute(model, **feeds)
    assert ops(model) == LAYER
    assert fuse_head_norms(model) == 1
    assert ops(model) == FUSED
    close(execute(model, **feeds)[0], expected, 1e-6)
    assert fuse_head_norms(model) == 0


@pytest.mark.parametrize("turning", [0, 2, 6])
@pytest.mark.parametrize("gated", [False, True])
def test_fuse_head_norms_keeps_gates_and_the_part_of_a_head_that_does_not_turn(
    turning: int, gated: bool
) -> None:
    model = projected(turning=turning, gated=gated)
    feeds = projection_feeds(model, 2, 3)
    (expected,) = execute(model, **feeds)
    assert fuse_head_norms(model) == 1
    assert ops(model) == FUSED
    close(execute(model, **feeds)[0], expected, 1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"key_tables": "cos2, sin"}, id="other rotary tables"),
        pytest.param({"key_turning": DIM}, id="another number of dimensions that turn"),
        pytest.param({"key_epsilon": "epsilon = 0.01"}, id="another epsilon"),
        pytest.param({"key_weight": "fed"}, id="a weight that is no constant"),
        *(
            pytest.param({"extra": f"z = Identity ({value})"}, id=f"a second reader of {value}")
            for value in ("q", "k", "q3", "k3")
        ),
        pytest.param({"extra": "z1 = Identity (q2)  z = Reshape (z1, flat)"}, id="a second reader of a norm"),
    ],
)
def test_fuse_head_norms_leaves_queries_and_keys_apart_when_they_cannot_share(
    changes: dict[str, Any],
) -> None:
    model = projected(**changes)
    feeds = projection_feeds(model, 2, 3)
    before, expected = ops(model), execute(model, **feeds)
    assert fuse_head_norms(model) == 0 and ops(model) == before
    for found, wanted in zip(execute(model, **feeds), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def attended(
    attributes: str = "",
    inputs: str = "q, k, v",
    heads: str = "3",
    perm: str = "0, 2, 1, 3",
    outputs: str = "float[f, t, 24] y",
    extra: str = "",
) -> ir.Model:
    """Attention over [frames, heads, tokens, 8], turned to rows as the encoders do it."""
    given = ", ".join(f"float[f, {heads}, t, {DIM}] {name}" for name in "qkv")
    return parse(f"""g ({given}, float[t, t] mask, int64[3] shape) => ({outputs}) {{
        a = Attention {attributes} ({inputs})
        turned = Transpose <perm = [{perm}]> (a)
        rows = Reshape (turned, shape)
        y = Neg (rows)
        {extra} }}""")


def attention_feeds(frames: int, tokens: int) -> dict[str, np.ndarray]:
    feeds = {name: normal(frames, 3, tokens, DIM, seed=seed) * 2 for seed, name in enumerate("qkv")}
    return feeds | {"mask": normal(tokens, tokens, seed=4), "shape": np.array([frames, tokens, 3 * DIM])}


@pytest.mark.parametrize("attributes", ["", "<scale = 0.7>", "<is_causal = 0, softcap = 0.0>"])
@pytest.mark.parametrize(("frames", "tokens"), [(1, 1), (1, 40), (4, 9), (2, 600)])
def test_flash_attention_gives_the_rows_of_plain_attention(attributes: str, frames: int, tokens: int) -> None:
    model, feeds = attended(attributes), attention_feeds(frames, tokens)
    (expected,) = execute(model, **feeds)
    assert flash_attention(model) == 1
    assert ops(model) == [
        "Transpose",
        "Transpose",
        "Transpose",
        "Reshape",
        "Reshape",
        "Reshape",
        "MultiHeadAttention",
        "Neg",
    ]
    assert model.opset_imports["com.microsoft"] == 1
    close(execute(model, **feeds)[0], expected, 1e-5)


def test_flash_attention_keeps_what_a_zero_in_the_shape_means() -> None:
    model = parse("""g (float[2, 3, t, 8] q, float[2, 3, t, 8] k, float[2, 3, t, 8] v) => (float[2, t, \
24] y) <int64[3] shape = {2, -1, 24}> {
        a = Attention (q, k, v)
        turned = Transpose <perm = [0, 2, 1, 3]> (a)
        rows = Reshape <allowzero = 1> (turned, shape)
        y = Neg (rows) }""")
    assert flash_attention(model) == 1
    assert [node.attributes["allowzero"].as_int() for node in model.graph if node.op_type == "Reshape"] == [
        1,
        1,
        1,
    ]


def test_flash_attention_keeps_a_scale_of_its_own() -> None:
    model = attended("<scale = 0.7>")
    flash_attention(model)
    (attention,) = (node for node in model.graph if node.op_type == "MultiHeadAttention")
    assert attention.attributes["scale"].as_float() == pytest.approx(0.7)
    assert attention.attributes["num_heads"].as_int() == 3


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"inputs": "q, k, v, mask"}, id="masked"),
        pytest.param({"attributes": "<is_causal = 1>"}, id="causal"),
        pytest.param({"attributes": "<softcap = 5.0>"}, id="soft cap"),
        pytest.param({"heads": "h"}, id="number of heads unknown"),
        pytest.param({"perm": "0, 1, 2, 3"}, id="rows in another order"),
        pytest.param({"outputs": f"float[f, t, 24] y, float[f, 3, t, {DIM}] a"}, id="the heads are put out"),
        pytest.param(
            {"outputs": f"float[f, t, 24] y, float[f, 3, t, {DIM}] z", "extra": "z = Identity (a)"},
            id="a second reader of the heads",
        ),
        pytest.param(
            {"outputs": f"float[f, t, 24] y, float[f, t, 3, {DIM}] z", "extra": "z = Identity (turned)"},
            id="a second reader of the rows",
        ),
    ],
)
def test_flash_attention_leaves_alone_what_is_not_plain(changes: dict[str, Any]) -> None:
    model = attended(**changes)
    before = ops(model)
    assert flash_attention(model) == 0 and ops(model) == before


def sized(
    first: str = "<start = 1, end = 2>", second: str = "<start = 1, end = 2>", other: str = "t"
) -> ir.Model:
    """The sizes of two tensors, and of a third inside a branch, put out as sums that keep them alive."""
    return parse(f"""g (float[b, t, 4] x, float[b, {other}, 6] z, bool yes) => (int64[n] y, \
int64[n] w, int64[m] taken) {{
        one = Constant <value_ints = [1]> ()
        sx = Shape {first} (x)
        sz = Shape {second} (z)
        y = Add (sx, one)
        w = Add (sz, one)
        taken = If (yes) <
            then_branch = a () => (int64[m] given) {{ given = Mul (sz, sz) }}, \
else_branch = b () => (int64[m] none) {{ none = Neg (sz) }}
        > }}""")


@pytest.mark.parametrize(
    "attributes", ["<start = 1, end = 2>", "<start = 0, end = 2>", "<start = -2, end = -1>"]
)
def test_share_sizes_asks_for_the_same_axes_once(attributes: str) -> None:
    model = sized("<start = 0, end = 2>" if "0" in attributes else "<start = 1, end = 2>", attributes)
    feeds = {"x": normal(2, 3, 4), "z": normal(2, 3, 6), "yes": np.array(True)}
    expected = execute(model, **feeds)
    assert share_sizes(model) == 1 and ops(model).count("Shape") == 1
    for found, wanted in zip(execute(model, **feeds), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert share_sizes(model) == 0


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"other": "u"}, id="an axis of another name"),
        pytest.param({"second": "<start = 0, end = 1>"}, id="another axis"),
        pytest.param({"second": ""}, id="all axes"),
    ],
)
def test_share_sizes_keeps_what_may_differ(changes: dict[str, str]) -> None:
    model = sized(**changes)
    before = ops(model)
    assert share_sizes(model) == 0 and ops(model) == before


def test_share_sizes_keeps_sizes_of_unnamed_axes_and_graph_outputs() -> None:
    unnamed = sized()
    for value in unnamed.graph.inputs[:2]:
        value.shape = ir.Shape([None, None, 4])
    assert share_sizes(unnamed) == 0
    put_out = parse("g (float[b, t, 4] x) => (int64[3] y, int64[3] w) { y = Shape (x)  w = Shape (x) }")
    assert share_sizes(put_out) == 0
