"""How ids are drawn: the parameters of one sampling stage."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .numeric import number, whole

TEMPERATURE = 1e-3, 1e3
"""Below, logits divided by it leave float32's range; 0 is greedy."""
TOP_P = 1e-6, 1.0
PENALTY = 1e-2, 1e2
"""Beyond, the penalty alone decides what is drawn."""


@dataclass(frozen=True)
class SamplingParameters:
    """How ids are drawn.

    `temperature` 0 is greedy, `top_k` 0 and `top_p` 1 are off; `max_tokens` None means
    up to the context limit.

    `min_tokens` ids come before the end is allowed. NumPy scalars become Python's. Raises AntiphonError when
    a value is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        values = {
            "temperature": number(self.temperature, "temperature", *TEMPERATURE, or_zero=True),
            "top_k": whole(self.top_k, "top_k", 0),
            "top_p": number(self.top_p, "top_p", *TOP_P),
            "repetition_penalty": number(self.repetition_penalty, "repetition_penalty", *PENALTY),
            "min_tokens": whole(self.min_tokens, "min_tokens", 0),
            "max_tokens": None if self.max_tokens is None else whole(self.max_tokens, "max_tokens", 1),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def greedy(self) -> SamplingParameters:
        """The same parameters without chance; penalty and limits stay,
        as in HF generate with do_sample=False.
        """
        return replace(self, temperature=0.0)

    def feeds(self, rows: int) -> dict[str, np.ndarray]:
        """The constant sampling inputs of a graph, each of shape [rows]:
        temperature, top_k, top_p, repetition_penalty.
        """
        return {
            "temperature": np.full(rows, self.temperature, np.float32),
            "top_k": np.full(rows, self.top_k, np.int64),
            "top_p": np.full(rows, self.top_p, np.float32),
            "repetition_penalty": np.full(rows, self.repetition_penalty, np.float32),
        }
