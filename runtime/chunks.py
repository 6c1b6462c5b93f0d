"""How many rows one prefill run takes."""

from __future__ import annotations

from .bundle import StageEntry

SCORE_BYTES = 64 * 2**20
"""Memory for the attention scores of one run: heads times rows times rows of context, which ONNX Runtime holds at once."""


def chunk_at(entry: StageEntry, row: int, most: int) -> int:
    """Rows of the run that begins at `row` of the context: at most `most`, and fewer far into a long context, where their scores take memory."""
    heads = int(entry.constants.get("attention_heads", 1))  # type: ignore[arg-type]
    return max(1, min(most, SCORE_BYTES // (4 * heads * max(1, row))))
