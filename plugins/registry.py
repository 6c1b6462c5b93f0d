"""All ops of `ai.antiphon`, by name."""

from __future__ import annotations

from dataclasses import dataclass

DOMAIN = "ai.antiphon"
DOMAIN_VERSION = 1


@dataclass(frozen=True)
class Op:
    """The signature of an op, as plain data that needs no ONNX library."""

    name: str
    inputs: tuple[tuple[str, str], ...]
    """(name, ONNX type string) of each input; type variable `T` stands for float32, float16 or bfloat16."""
    outputs: tuple[tuple[str, str], ...]
    attributes: tuple[tuple[str, str], ...]
    """(name, `int` or `float`) of each required attribute."""
    doc: str


MOE = Op(
    "MoE",
    inputs=(("x", "T"), ("router_logits", "T"), ("gate_up", "T"), ("down", "T")),
    outputs=(("y", "T"),),
    attributes=(("top_k", "int"), ("normalize", "int")),
    doc=(
        "Sparse SwiGLU experts. x [..., hidden], router_logits [rows, experts], "
        "gate_up [experts, 2 * inter, hidden] with gate and up rows interleaved, "
        "down [experts, hidden, inter]. Weights are the softmax over all experts at the top_k largest, "
        "divided by their sum when normalize is 1."
    ),
)
QUANTIZED_MOE = Op(
    "QuantizedMoE",
    inputs=(
        ("x", "T"),
        ("router_logits", "T"),
        ("gate_up", "tensor(uint8)"),
        ("gate_up_scale", "tensor(float)"),
        ("down", "tensor(uint8)"),
        ("down_scale", "tensor(float)"),
    ),
    outputs=(("y", "T"),),
    attributes=(("top_k", "int"), ("normalize", "int"), ("format", "int")),
    doc=(
        "MoE with weights of 8 or 4 bits. format 0: the bits of FP8 E4M3; 1: INT8; "
        "2: INT4, two to a byte along the input axis, the first in the low bits, stored plus 8. "
        "A weight is its number times its scale; scales are [experts, outputs / r, inputs / c]. "
        "Along either axis a scale stands for 128 places where there are ceil(size / 128) scales, "
        "else for size / scales: per channel (r 1, c all), in blocks of 128, in groups of 32, 64 or 128."
    ),
)
ATTENTION = Op(
    "Attention",
    inputs=(
        ("query", "T"),
        ("key", "T"),
        ("value", "T"),
        ("past_key", "T"),
        ("past_value", "T"),
        ("past_length", "tensor(int64)"),
        ("query_length", "tensor(int64)"),
    ),
    outputs=(("y", "T"), ("present_key", "T"), ("present_value", "T")),
    attributes=(("num_heads", "int"), ("kv_num_heads", "int")),
    doc=(
        "Causal grouped-query attention with a cache written in place. query [batch, tokens, heads * dim], "
        "key and value [batch, tokens, kv_heads * dim], past and present [batch, kv_heads, capacity, dim]: "
        "new rows are written at past_length, row t sees keys 0 .. past_length + t."
    ),
)
SAMPLE_TOKEN = Op(
    "SampleToken",
    inputs=(
        ("logits", "T"),
        ("noise", "tensor(float)"),
        ("temperature", "tensor(float)"),
        ("top_k", "tensor(int64)"),
        ("top_p", "tensor(float)"),
        ("repetition_penalty", "tensor(float)"),
        ("penalised", "tensor(bool)"),
        ("suppressed", "tensor(bool)"),
    ),
    outputs=(("token", "tensor(int64)"),),
    attributes=(),
    doc=(
        "One id per row of logits [rows, vocab] from given uniform noise [rows]: repetition penalty on "
        "the penalised ids, suppression, temperature, top-k, top-p, then the inverse of the cumulative "
        "distribution in id order. Temperature 0 takes the largest logit, the first of equals."
    ),
)
CAUSAL_CONV_STATE = Op(
    "CausalConvState",
    inputs=(("x", "T"), ("weight", "T"), ("past", "T"), ("query_length", "tensor(int64)")),
    outputs=(("y", "T"), ("present", "T")),
    attributes=(),
    doc=(
        "SiLU of the depthwise causal convolution of past|x. x [batch, tokens, channels], "
        "weight [channels, 1, kernel], past and present [batch, kernel - 1, channels]. "
        "Rows at or beyond query_length are padding: zero in y, never in present."
    ),
)
GATED_DELTA_RULE = Op(
    "GatedDeltaRule",
    inputs=(
        ("query", "T"),
        ("key", "T"),
        ("value", "T"),
        ("a", "T"),
        ("b", "T"),
        ("dt_bias", "T"),
        ("decay_scale", "T"),
        ("past", "tensor(float)"),
        ("query_length", "tensor(int64)"),
    ),
    outputs=(("y", "T"), ("present", "tensor(float)")),
    attributes=(("key_heads", "int"), ("value_heads", "int")),
    doc=(
        "Linear attention by the gated delta rule. query and key [batch, tokens, key_heads * key_dim], "
        "L2-normalised here, value [batch, tokens, value_heads * value_dim], "
        "a and b [batch, tokens, value_heads], dt_bias and decay_scale = -exp(A_log) [value_heads], "
        "past and present [batch, value_heads, key_dim, value_dim]. With S scaled "
        "by exp(decay_scale * softplus(a + dt_bias)): S += k (sigmoid(b) (v - S^T k))^T, y = S^T q / "
        "sqrt(key_dim). Rows at or beyond query_length are padding: zero in y, without effect on present."
    ),
)
ARIA_STEP = Op(
    "AriaStep",
    inputs=(
        ("need", "tensor(int64)"),
        ("text_ids", "tensor(int64)"),
        ("text_length", "tensor(int64)"),
        ("text_complete", "tensor(bool)"),
        ("codes", "tensor(int64)"),
        ("counters", "tensor(int64)"),
        ("text_embedding", "T"),
        ("code_embedding", "T"),
    ),
    outputs=(
        ("row", "T"),
        ("query_length", "tensor(int64)"),
        ("sample", "tensor(bool)"),
        ("may_end", "tensor(bool)"),
        ("present_counters", "tensor(int64)"),
    ),
    attributes=(("end_id", "int"), ("pad_id", "int"), ("summed", "int"), ("end_anywhere", "int")),
    doc=(
        "The Talker's next row [batch, hidden] of one stream of text and speech, or a hold (query_length 0). "
        "need [table]: text rows before frame k at k - 1. text_ids [batch, slots], text_length and "
        "text_complete [batch]: the text so far. codes [batch, groups]: the last frame, whose row is the "
        "sum of its rows of code_embedding [groups * codebook, hidden]. counters [batch, 4]: text rows in, "
        "frames out, end fed, frame row pending. A frame is sampled behind the row where sample is true, "
        "and may be the end where may_end is. summed 1 adds the text row, or pad_id's, to the frame's row."
    ),
)
OPS: dict[str, Op] = {
    op.name: op
    for op in (MOE, QUANTIZED_MOE, ATTENTION, SAMPLE_TOKEN, CAUSAL_CONV_STATE, GATED_DELTA_RULE, ARIA_STEP)
}
FOLDERS = {
    "MoE": "moe",
    "QuantizedMoE": "quantized_moe",
    "Attention": "attention",
    "SampleToken": "sample_token",
    "CausalConvState": "causal_conv_state",
    "GatedDeltaRule": "gated_delta_rule",
    "AriaStep": "aria_step",
}
"""The folder of each op."""
