"""All ops of `ai.antiphon`, by name."""

from __future__ import annotations

from dataclasses import dataclass

DOMAIN = "ai.antiphon"
DOMAIN_VERSION = 1


@dataclass(frozen=True)
class Op:
    """An op of the domain: its signature, as plain data that needs no ONNX library to read."""

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
    doc="Sparse SwiGLU experts. x [..., hidden], router_logits [rows, experts], gate_up [experts, 2 * inter, hidden] with gate and up rows "
    "interleaved, down [experts, hidden, inter]. Weights are the softmax over all experts at the top_k largest, divided by their sum when normalize is 1.",
)
ATTENTION = Op(
    "Attention",
    inputs=(
        ("query", "T"), ("key", "T"), ("value", "T"), ("past_key", "T"), ("past_value", "T"),
        ("past_length", "tensor(int64)"), ("query_length", "tensor(int64)"),
    ),
    outputs=(("y", "T"), ("present_key", "T"), ("present_value", "T")),
    attributes=(("num_heads", "int"), ("kv_num_heads", "int")),
    doc="Causal grouped-query attention with a cache written in place. query [batch, tokens, heads * dim], key and value [batch, tokens, kv_heads * dim], "
    "past and present [batch, kv_heads, capacity, dim]: new rows are written at past_length, row t sees keys 0 .. past_length + t.",
)  # fmt: skip
SAMPLE_TOKEN = Op(
    "SampleToken",
    inputs=(
        ("logits", "T"), ("noise", "tensor(float)"), ("temperature", "tensor(float)"), ("top_k", "tensor(int64)"), ("top_p", "tensor(float)"),
        ("repetition_penalty", "tensor(float)"), ("penalised", "tensor(bool)"), ("suppressed", "tensor(bool)"),
    ),
    outputs=(("token", "tensor(int64)"),),
    attributes=(),
    doc="One id per row of logits [rows, vocab] from given uniform noise [rows]: repetition penalty on the penalised ids, suppression, temperature, "
    "top-k, top-p, then the inverse of the cumulative distribution in id order. Temperature 0 takes the largest logit, the first of equals.",
)  # fmt: skip
OPS: dict[str, Op] = {op.name: op for op in (MOE, ATTENTION, SAMPLE_TOKEN)}
