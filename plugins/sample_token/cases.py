"""Cases of SampleToken whose draws are clear: rounding to float32 cannot change the id that float64 gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...runtime.kernels.contract import Program
from ..tools.case import Case, rounded
from .reference import sample_token

MARGIN = 1e-5
"""Distance in probability within which a float32 draw may differ from the exact one."""
PER_ROW = {
    "noise": "float32",
    "temperature": "float32",
    "top_k": "int64",
    "top_p": "float32",
    "repetition_penalty": "float32",
}
RECIPES = {  # temperature, top_k, top_p, repetition_penalty
    "greedy": (0.0, 50, 0.9, 1.1),
    "talker": (0.9, 50, 1.0, 1.05),
    "predictor": (1.0, 50, 0.8, 1.0),
    "few": (0.7, 5, 0.9, 1.2),
    "one": (1.0, 1, 1.0, 1.0),
    "nucleus": (0.8, 0, 0.8, 1.0),
    "narrow nucleus": (0.2, 20, 1e-9, 1.0),
    "nothing cut": (1.0, 0, 1.0, 1.1),
    "hundreds": (1.3, 300, 0.9, 1.0),
    "more than there are": (1.0, 10**9, 0.7, 1.5),
}

KINDS = ("ordinary", "flat", "quantised")
"""Logits that spread as a model's do, that hardly differ, and of which many are equal, the largest too."""


@dataclass(frozen=True)
class Draw:
    """One row in float64: the kept ids, and the margins of the draw."""

    ids: np.ndarray
    """The kept ids in ascending order."""
    edges: np.ndarray
    """Cumulative probability up to and including each kept id."""
    filter_margin: float
    """The smallest change of probability or score that changes the filters' choice (or the largest logit)."""
    margin: float
    """The smaller of filter_margin and the distance of the noise from the nearest edge between two ids."""


def cases(program: Program, rng: np.random.Generator) -> Iterator[Case]:
    """One row per recipe, on logits of every kind in turn. Vocabularies fill the blocks or end within one."""
    tile = program.launches[0].constants.get("TILE")
    vocabularies = {2048: (2048, 2048, 2048, 1900, 17, 1), 4096: (3072, 4096), 8192: (5120,)}.get(
        tile if isinstance(tile, int) else 0, (8208,)
    )
    for shift, vocab in enumerate(vocabularies):
        inputs = clear_inputs(program, rng, vocab, shift)
        yield Case(
            f"{vocab} ids, recipes from {KINDS[shift % len(KINDS)]} logits on",
            program,
            inputs,
            {},
            partial(expected, inputs),
            0.0,
        )


def expected(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"token": sample_token(**{**inputs, "logits": inputs["logits"].astype(np.float64)})}


def clear_inputs(
    program: Program, rng: np.random.Generator, vocab: int, shift: int = 0
) -> dict[str, np.ndarray]:
    """Inputs whose row r has recipe r and kind r + shift; a row is drawn again until its margin is wide."""
    rows = []
    for place, recipe in enumerate(RECIPES.values()):
        kind = KINDS[(place + shift) % len(KINDS)]
        for _ in range(200):
            row = random_row(rng, vocab, kind, recipe, program.inputs[0].dtype)
            if draw(row).margin > MARGIN:
                rows.append(row)
                break
        else:
            raise AssertionError(f"No clear draw of {recipe} from {vocab} {kind} logits was found.")
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def random_row(
    rng: np.random.Generator, vocab: int, kind: str, recipe: tuple[float, int, float, float], dtype: str
) -> dict[str, np.ndarray]:
    """Inputs of one row by name; a fifth of the ids is suppressed, a tenth penalised."""
    logits = rng.standard_normal(vocab) * {"ordinary": 3.0, "flat": 0.02, "quantised": 2.0}[kind]
    suppressed = rng.random(vocab) < 0.2
    suppressed[rng.integers(vocab)] = False
    values = {"noise": rng.integers(0, 2**24) / 2**24} | dict(zip(list(PER_ROW)[1:], recipe, strict=True))
    return {
        "logits": rounded(np.round(logits) if kind == "quantised" else logits, dtype),
        **{name: np.array(value, PER_ROW[name]) for name, value in values.items()},
        "penalised": rng.random(vocab) < 0.1,
        "suppressed": suppressed,
    }


def draw(row: Mapping[str, np.ndarray]) -> Draw:
    """The ids that the op keeps of `row`, and their margins, by the op's definition."""
    logits, penalty = row["logits"].astype(np.float64), np.float64(row["repetition_penalty"])
    scores = np.where(row["penalised"], np.where(logits > 0, logits / penalty, logits * penalty), logits)
    scores = np.where(row["suppressed"], -np.inf, scores)
    if row["temperature"] == 0:
        values = np.unique(scores[np.isfinite(scores)])
        gap = float(np.ptp(values[-2:])) / max(1.0, abs(values[-1])) if len(values) > 1 else np.inf
        return Draw(np.array([np.argmax(scores)]), np.ones(1), gap, gap)
    scores = scores / np.float64(row["temperature"])
    order = np.sort(scores[np.isfinite(scores)])[::-1]
    margin = np.inf
    top_k = int(row["top_k"])
    if 0 < top_k < len(order):
        margin = _other_than_zero(order[top_k - 1] - order[top_k])
        order = order[:top_k]
    if row["top_p"] < 1:
        share = np.exp(order - order[0])
        before = (np.cumsum(share) - share) / share.sum()
        # The indices where a smaller score begins; the first score is always kept.
        starts = np.flatnonzero(np.diff(order, prepend=np.inf))[1:]
        margin = min(margin, float(np.abs(before[starts] - row["top_p"]).min(initial=np.inf)))
        order = order[: 1 + np.count_nonzero(before[1:] < row["top_p"])]
    ids = np.flatnonzero(scores >= order[-1])
    weights = np.exp(scores[ids] - order[0])
    edges = np.cumsum(weights) / weights.sum()
    return Draw(ids, edges, margin, min(margin, float(np.abs(edges[:-1] - row["noise"]).min(initial=np.inf))))


def _other_than_zero(gap: float) -> float:
    return float(gap) if gap else float("inf")
