"""Cases of AriaStep: streams in every state, including states that no answer reaches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ...runtime.kernels.contract import Program
from ..registry import ARIA_STEP
from ..tools.case import Case, rounded
from .reference import aria_step

TOLERANCES = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}
END_ID, PAD_ID = 3, 4


def cases(program: Program, rng: np.random.Generator) -> Iterator[Case]:
    """Both tracks; 16 and fewer groups; hidden sizes below, equal to and above a block.

    Codes and ids that the kernel must not read are out of range.
    """
    for place, (batch, groups, hidden, codebook, table) in enumerate(
        [(12, 16, 272, 5, 7), (5, 2, 16, 64, 1), (3, 1, 256, 9, 3), (1, 11, 128, 2, 5)]
    ):
        for summed in (0, 1):
            attributes = {
                "end_id": END_ID,
                "pad_id": PAD_ID,
                "summed": summed,
                "end_anywhere": (place + summed) % 2,
            }
            inputs = any_streams(program, rng, batch, groups, hidden, codebook, table)
            name = (
                f"batch {batch}, groups {groups}, hidden {hidden}, "
                f"{'summed' if summed else 'rows of their own'}"
            )
            yield Case(
                name,
                program,
                inputs,
                attributes,
                partial(expected, inputs, attributes),
                TOLERANCES[program.name],
            )


def any_streams(
    program: Program,
    rng: np.random.Generator,
    batch: int,
    groups: int,
    hidden: int,
    codebook: int,
    table: int,
    slots: int = 6,
    vocab: int = 40,
) -> dict[str, np.ndarray]:
    """Inputs by name. Codes of a frame that is not pending and ids beyond text_length are out of range."""
    length = rng.integers(0, slots + 1, batch)
    counters = np.stack(
        [
            rng.integers(0, length + 1),
            rng.integers(0, table + 3, batch),
            rng.integers(0, 2, batch),
            rng.integers(0, 2, batch),
        ],
        axis=1,
    )
    return {
        "need": np.sort(rng.integers(1, slots + 3, table)),
        "text_ids": np.where(
            np.arange(slots) < length[:, None], rng.integers(0, vocab, (batch, slots)), 2**40
        ),
        "text_length": length,
        "text_complete": rng.random(batch) < 0.5,
        "codes": np.where(counters[:, 3:] > 0, rng.integers(0, codebook, (batch, groups)), -(2**40)),
        "counters": counters,
        "text_embedding": rounded(rng.standard_normal((vocab, hidden)), program.name),
        "code_embedding": rounded(rng.standard_normal((groups * codebook, hidden)), program.name),
    }


def expected(inputs: dict[str, np.ndarray], attributes: dict[str, int]) -> dict[str, np.ndarray]:
    """The reference's outputs by name."""
    arguments: list[Any] = [inputs[name] for name, _ in ARIA_STEP.inputs]
    arguments += [
        attributes["end_id"],
        attributes["pad_id"],
        bool(attributes["summed"]),
        bool(attributes["end_anywhere"]),
    ]
    outputs = aria_step(*arguments)
    return {name: output for (name, _), output in zip(ARIA_STEP.outputs, outputs, strict=True)}
