"""Random media as content parts of messages."""

from __future__ import annotations

from typing import Any

import numpy as np


def clip(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def frames(height: int, width: int, *time: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (*time, height, width, 3), np.uint8)


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def sound(samples: int, seed: int = 0) -> dict[str, Any]:
    return {"type": "audio", "audio": clip(samples, seed)}


def picture(height: int, width: int) -> dict[str, Any]:
    return {"type": "image", "image": frames(height, width)}
