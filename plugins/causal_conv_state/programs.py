"""The GPU programs of CausalConvState."""

from __future__ import annotations

from ...runtime.kernels.contract import Launch, Operand, Program, Scalar

DTYPES = ("bfloat16", "float16", "float32")


def programs(target: str) -> list[Program]:
    """Decode (up to four tokens) and prefill, per dtype of x and of the state.

    The state has the dtype of x, or float32 where the graph keeps it so.
    """
    return [
        _program(dtype, state, regime)
        for dtype in DTYPES
        for state in dict.fromkeys((dtype, "float32"))
        for regime in ("decode", "prefill")
    ]


def _program(dtype: str, state: str, regime: str) -> Program:
    # Prefill: a thread computes 8 channels (16 bytes of bfloat16) of 16 tokens. 3 rows in 19 are read twice,
    # the second time from the cache. 4096 tokens of 8192 channels make 2048 blocks. Decode: one warp per
    # block, so that 8192 channels make 128 blocks for an H100's 132 multiprocessors.
    block_tokens, block_channels, warps = {"decode": (4, 64, 1), "prefill": (16, 1024, 4)}[regime]
    return Program(
        op="CausalConvState",
        name=f"{dtype}-{state}-state-{regime}",
        inputs=(
            Operand("x", dtype, ("batch", "tokens", "channels")),
            Operand("weight", dtype, ("channels", "1", "4")),
            Operand("past", state, ("batch", "3", "channels")),
            Operand("query_length", "int64", ("batch",)),
        ),
        outputs=(
            Operand("y", dtype, ("batch", "tokens", "channels")),
            Operand("present", state, ("batch", "3", "channels")),
        ),
        launches=(
            Launch(
                kernel="causal_conv_state.causal_conv",
                inputs=("x", "weight", "past", "query_length"),
                scalars=(Scalar("tokens", "tokens"), Scalar("channels", "channels", multiple=16)),
                outputs=("y", "present"),
                # At least one block per stream, because it also writes the state when there are no tokens.
                grid=(
                    f"max(ceil_div(tokens, {block_tokens}), 1)",
                    f"ceil_div(channels, {block_channels})",
                    "batch",
                ),
                constants={"BLOCK_TOKENS": block_tokens, "BLOCK_CHANNELS": block_channels},
                warps=warps,
                stages=1,
            ),
        ),
        when="channels % 16 == 0 and tokens <= 4" if regime == "decode" else "channels % 16 == 0",
    )
