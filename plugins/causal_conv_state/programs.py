"""How CausalConvState runs on a GPU."""

from __future__ import annotations

from ...runtime.kernels.contract import Launch, Program, Scalar, TensorSpec

DTYPES = ("bfloat16", "float16", "float32")
KERNEL = 4
"""Taps of both families' Gated DeltaNet layers."""


def programs(target: str) -> list[Program]:
    """Decode (one token: a block takes many channels) and prefill, per dtype of x and of the state, which stays float32 where the graph keeps it so."""
    return [_program(dtype, state, regime) for dtype in DTYPES for state in dict.fromkeys((dtype, "float32")) for regime in ("decode", "prefill")]


def _program(dtype: str, state: str, regime: str) -> Program:
    block_tokens, block_channels = {"decode": (1, 256), "prefill": (16, 128)}[regime]
    return Program(
        op="CausalConvState",
        name=f"{dtype}-{state}-state-{regime}",
        inputs=(
            TensorSpec("x", dtype, ("batch", "tokens", "channels")),
            TensorSpec("weight", dtype, ("channels", "1", str(KERNEL))),
            TensorSpec("past", state, ("batch", str(KERNEL - 1), "channels")),
            TensorSpec("query_length", "int64", ("batch",)),
        ),
        outputs=(TensorSpec("y", dtype, ("batch", "tokens", "channels")), TensorSpec("present", state, ("batch", str(KERNEL - 1), "channels"))),
        launches=(
            Launch(
                kernel="causal_conv_state.causal_conv",
                inputs=("x", "weight", "past", "query_length"),
                scalars=(Scalar("tokens", "tokens"), Scalar("channels", "channels", multiple=16)),
                outputs=("y", "present"),
                grid=(f"ceil_div(channels, {block_channels})", f"ceil_div(tokens, {block_tokens})", "batch"),
                constants={"KERNEL": KERNEL, "BLOCK_TOKENS": block_tokens, "BLOCK_CHANNELS": block_channels},
                stages=1,
            ),
        ),
        when="channels % 16 == 0 and tokens == 1" if regime == "decode" else "channels % 16 == 0",
    )
