"""A cache folder for slow results: synthesised audio, and transcripts and measures of audio."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.errors import AntiphonError

SCALE = 32767


def digest(samples: np.ndarray) -> str:
    """The name of a piece of audio, from its content float32 [samples]."""
    return hashlib.sha256(np.ascontiguousarray(samples, np.float32).tobytes()).hexdigest()[:24]


class Work:
    """Reads cached results, and makes and stores the others.

    Audio is always rounded to int16, so that a second run measures the same samples.
    """

    def __init__(self, folder: Path) -> None:
        """Creates `folder` if it is missing. Raises AntiphonError if that is impossible."""
        self.folder, self._values = folder, folder / "values.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = self._values.read_text(encoding="utf-8").splitlines() if self._values.exists() else []
        except OSError as error:
            raise AntiphonError(
                f"{folder} cannot keep work ({error.strerror}); "
                "name a folder that can be written with --work."
            ) from None
        self._known: dict[str, Any] = {}
        for line in filter(None, lines):
            try:
                self._known.update(json.loads(line))
            except ValueError:  # a killed run may leave half a line
                continue

    def value(self, key: str, make: Callable[[], Any]) -> Any:
        """The result of `make` for `key`, as JSON stores it."""
        if key not in self._known:
            self._known[key] = made = make()
            with self._values.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({key: made}))  # on a new line, also after half a line
        return self._known[key]

    def audio(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Samples float32 [n] in [-1, 1] from `make`, for `key`."""
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
        if not path.exists():
            made = np.round(np.clip(make(), -1, 1) * SCALE).astype(np.int16)
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                np.save(file, made)
            part.rename(path)
        samples: np.ndarray = np.load(path)
        return samples.astype(np.float32) / SCALE
