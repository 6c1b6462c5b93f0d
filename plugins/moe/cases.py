"""Cases of MoE: small inputs with answers in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from ...runtime.kernels.contract import Program
from ..tools.case import Case, rounded
from .reference import moe

TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}
"""Weights, inputs and shares are exact. The activations and each expert's output are rounded once."""
ROUTINGS = ("random", "all to one", "half of the experts never", "equal")


def cases(program: Program, rng: np.random.Generator) -> Iterator[Case]:
    """One row, odd counts, all rows to one expert, experts without rows, equal logits; top_k 1 and all."""
    decode, odd = "-decode-" in program.name, not program.name.endswith("-128-experts")
    for rows, experts, top_k, routing, normalize in (
        ((1,), 5 if odd else 16, 2, "random", True),
        ((2, 3) if decode else (3, 7), 7 if odd else 16, 3, "half of the experts never", False),
        ((16,) if decode else (40,), 3 if odd else 16, 1, "all to one", True),
        ((5,), 4 if odd else 16, 4, "equal", False),
        ((0,), 3 if odd else 16, 1, "random", True),
    ):
        yield case(
            program,
            rng,
            rows,
            hidden=80,
            inter=48,
            experts=experts,
            top_k=top_k,
            normalize=normalize,
            routing=routing,
        )


def case(
    program: Program,
    rng: np.random.Generator,
    rows: tuple[int, ...],
    hidden: int,
    inter: int,
    experts: int,
    top_k: int,
    normalize: bool,
    routing: str,
) -> Case:
    """One call; `rows` are x's leading axes and `routing` is one of ROUTINGS."""
    dtype = program.inputs[0].dtype
    shared = any(spec.name == "shared_gate" for spec in program.inputs)
    logits = router_logits(rng, rows, experts, routing)
    matrices = experts + shared
    inputs = {
        "x": rng.standard_normal((*rows, hidden)),
        "router_logits": logits,
        "gate_up": rng.standard_normal((matrices, 2 * inter, hidden)) / np.sqrt(hidden),
        "down": rng.standard_normal((matrices, hidden, inter)) / np.sqrt(inter),
        **({"shared_gate": rng.standard_normal(rows)} if shared else {}),
    }
    inputs = {name: rounded(value, dtype) for name, value in inputs.items()}
    attributes = {"top_k": top_k, "normalize": int(normalize)}
    name = (
        f"{program.name}: rows {rows}, hidden {hidden}, inter {inter}, {experts} experts, "
        f"top-{top_k}, {routing}"
    )
    return Case(name, program, inputs, attributes, partial(_expected, inputs, attributes), TOLERANCE[dtype])


def router_logits(rng: np.random.Generator, rows: tuple[int, ...], experts: int, routing: str) -> np.ndarray:
    """Logits [*rows, experts] of one of ROUTINGS."""
    logits = rng.standard_normal((*rows, experts)) * 2
    if routing == "all to one":
        logits[..., experts - 1] += 20
    if routing == "half of the experts never":
        logits[..., ::2] -= 40
    if routing == "equal":
        logits[...] = np.where(np.arange(experts) % 2, 0.0, -0.0)
    return logits


def _expected(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, int]) -> Mapping[str, np.ndarray]:
    x, logits, gate_up, down = inputs["x"], inputs["router_logits"], inputs["gate_up"], inputs["down"]
    rows, logits = x.reshape(-1, x.shape[-1]), logits.reshape(-1, logits.shape[-1])
    experts = logits.shape[-1]
    y = moe(
        rows, logits, gate_up[:experts], down[:experts], attributes["top_k"], bool(attributes["normalize"])
    )
    if "shared_gate" in inputs:  # a mixture of one expert would give it the share 1
        share = 1 / (1 + np.exp(-inputs["shared_gate"].reshape(-1, 1)))
        y += share * moe(rows, np.zeros((len(rows), 1)), gate_up[experts:], down[experts:], 1, True)
    return {"y": y}
