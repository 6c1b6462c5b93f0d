"""Benchmarks of AriaStep at the sizes of the Talkers, compared with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..tools.benchmark import Benchmark

if TYPE_CHECKING:
    import torch

GROUPS, CODEBOOK, VOCAB, TABLE, SLOTS = 16, 2048, 4096, 4096, 2048
"""The text vocabulary is smaller than a real one: a step reads one row of it."""


def benchmarks() -> list[Benchmark]:
    """Dual track (every step sums 16 code rows and a text row): hidden 1,024 and 2,048, 1 and 16 streams."""
    return [_benchmark(hidden, batch) for hidden in (1024, 2048) for batch in (1, 16)]


def eager(inputs: Mapping[str, torch.Tensor], attributes: Mapping[str, int]) -> Any:
    """The outputs of AriaStep in PyTorch, as in plugins.aria_step.torch_op."""
    import torch

    counters, need, codes = inputs["counters"], inputs["need"], inputs["codes"]
    text_in, frames = counters[:, 0], counters[:, 1]
    ended, pending = counters[:, 2] != 0, counters[:, 3] != 0
    wanted = need[frames.clamp(max=len(need) - 1)]
    is_due = ~ended & (text_in < wanted)
    if not attributes["summed"]:
        is_due = is_due & ~pending
    feeds_text = is_due & (text_in < inputs["text_length"])
    feeds_end = is_due & ~feeds_text & inputs["text_complete"] & (text_in > 0)
    feeds_frame = pending & (~is_due | feeds_text | feeds_end)
    feeds_id = feeds_text | feeds_end
    if attributes["summed"]:
        feeds_id = feeds_id | feeds_frame
    next_id = inputs["text_ids"].gather(1, text_in.clamp(max=inputs["text_ids"].shape[1] - 1)[:, None])[:, 0]
    text_id = torch.where(
        feeds_text, next_id, torch.where(feeds_end, attributes["end_id"], attributes["pad_id"])
    )
    codebook = inputs["code_embedding"].shape[0] // codes.shape[1]
    places = torch.where(pending[:, None], codes, 0) + codebook * torch.arange(
        codes.shape[1], device=codes.device
    )
    frame_row = torch.where(feeds_frame[:, None], inputs["code_embedding"][places].sum(1), 0)
    row = frame_row + torch.where(
        feeds_id[:, None], inputs["text_embedding"][torch.where(feeds_id, text_id, 0)], 0
    )
    is_fed = feeds_id | feeds_frame
    text_in, ended = text_in + feeds_text, ended | feeds_end
    sample = is_fed & (ended | (text_in >= wanted))
    may_end = torch.ones_like(ended) if attributes["end_anywhere"] else ended
    present = torch.stack(
        [text_in, frames + sample, ended.long(), (sample | pending & ~feeds_frame).long()], dim=1
    )
    return row, is_fed.long(), sample, may_end, present


def _benchmark(hidden: int, batch: int) -> Benchmark:
    integers = GROUPS + 4 + 4 + 4  # codes, counters before and after, need, id, two lengths
    return Benchmark(
        name=f"hidden {hidden}, {batch} stream{'s' if batch > 1 else ''}",
        op="AriaStep",
        attributes={"end_id": 1, "pad_id": 2, "summed": 1, "end_anywhere": 1},
        make=partial(_inputs, hidden, batch),
        eager=eager,
        bytes_moved=batch * (2 * hidden * (GROUPS + 2) + 8 * integers + 3),
        operations=batch * hidden * GROUPS,
        aim="under 10 microseconds",
    )


def _inputs(hidden: int, batch: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    import torch

    device = generator.device

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator, device=device)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).bfloat16()

    frames = integers(SLOTS - 2, batch) + 1
    return {
        "need": torch.arange(1, TABLE + 1, device=device),
        "text_ids": integers(VOCAB, batch, SLOTS),
        "text_length": torch.full((batch,), SLOTS, device=device),
        "text_complete": torch.ones(batch, dtype=torch.bool, device=device),
        "codes": integers(CODEBOOK, batch, GROUPS),
        # As much text as the frames need.
        "counters": torch.stack([frames, frames, torch.zeros_like(frames), torch.ones_like(frames)], dim=1),
        "text_embedding": random(VOCAB, hidden),
        "code_embedding": random(GROUPS * CODEBOOK, hidden),
    }
