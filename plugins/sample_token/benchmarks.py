"""Benchmarks of SampleToken at the vocabularies of predictor, Talker and Thinker, compared with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..tools.benchmark import Benchmark

if TYPE_CHECKING:
    import torch


def benchmarks() -> list[Benchmark]:
    """One answer and 16, with top_k 50, top_p 0.9 and a repetition penalty."""
    return [
        _benchmark(name, vocab, rows)
        for name, vocab in (("predictor", 2048), ("Talker", 3072), ("Thinker", 151936))
        for rows in (1, 16)
    ]


def eager(inputs: Mapping[str, torch.Tensor], attributes: Mapping[str, int]) -> Any:
    """The ids for temperatures above 0 and any filters, in PyTorch.

    Sorts the whole vocabulary, because every row has its own top_k. Reads nothing back to the host.
    """
    import torch

    logits, penalty = inputs["logits"].float(), inputs["repetition_penalty"][:, None]
    scores = torch.where(
        inputs["penalised"], torch.where(logits > 0, logits / penalty, logits * penalty), logits
    )
    scores = scores.masked_fill(inputs["suppressed"], float("-inf")) / inputs["temperature"][:, None]
    ordered, _ = scores.sort(dim=-1, descending=True)
    vocab = scores.shape[1]
    top_k = torch.where(inputs["top_k"] > 0, inputs["top_k"], vocab)[:, None]
    ordered = torch.where(torch.arange(vocab, device=scores.device) < top_k, ordered, float("-inf"))
    share = ordered.softmax(-1)
    is_in = (share.cumsum(-1) - share < inputs["top_p"][:, None]) & ordered.isfinite()
    threshold = torch.where(is_in, ordered, float("inf")).amin(-1, keepdim=True)
    cumulative = torch.where(scores >= threshold, scores, float("-inf")).softmax(-1).cumsum(-1)
    return (cumulative <= inputs["noise"][:, None] * cumulative[:, -1:]).sum(-1).clamp(max=vocab - 1)


def _benchmark(name: str, vocab: int, rows: int) -> Benchmark:
    return Benchmark(
        name=f"{name}, {vocab} ids, {rows} row{'s' if rows > 1 else ''}",
        op="SampleToken",
        attributes={},
        make=partial(_inputs, vocab, rows),
        eager=eager,
        bytes_moved=rows * (vocab * (2 + 1 + 1) + 4 * 4 + 8 + 8),
        operations=rows * vocab * 4,  # penalty, temperature, weight and sum
        aim="under 10 microseconds" if vocab < 10000 else "",
    )


def _inputs(vocab: int, rows: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    import torch

    device = generator.device
    suppressed = torch.zeros((rows, vocab), dtype=torch.bool, device=device)
    suppressed[:, vocab - vocab // 3 :] = vocab == 3072  # the last 1,024 ids of the Talker are no codes
    return {
        "logits": (3 * torch.randn((rows, vocab), generator=generator, device=device)).bfloat16(),
        "noise": torch.rand((rows,), generator=generator, device=device),
        "temperature": torch.full((rows,), 0.9, device=device),
        "top_k": torch.full((rows,), 50, device=device),
        "top_p": torch.full((rows,), 0.9, device=device),
        "repetition_penalty": torch.full((rows,), 1.05, device=device),
        "penalised": torch.rand((rows, vocab), generator=generator, device=device) < 0.05,
        "suppressed": suppressed,
    }
