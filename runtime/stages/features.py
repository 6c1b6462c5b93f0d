"""Encoder outputs of a prompt's media, computed when the Thinker reaches their tokens
and dropped behind them.

Long audio and video are never in memory as a whole: only the features of one chunk's tokens, and of the
encoder call that reaches into the next chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..frontend.prompt.encoder_calls import EncoderCall

Encode = Callable[[EncoderCall], Mapping[str, np.ndarray]]


class Features:
    """Encoder outputs of one prefill, by the rows of the tokens they belong to;
    rows are asked for in ascending order.
    """

    def __init__(
        self,
        hidden: int,
        deepstack: int,
        calls: Sequence[tuple[EncoderCall, int]] = (),
        encode: Encode | None = None,
    ) -> None:
        """`calls`: encoder calls with the row of their segment's first token; `encode` runs one of them."""
        placed = ((np.asarray(call.rows, np.int64) + offset, call) for call, offset in calls)
        self._pending = sorted(
            ((rows, call) for rows, call in placed if len(rows)), key=lambda item: int(item[0][0])
        )
        self._encode = encode
        self._index, self._rows = np.zeros(0, np.int64), np.zeros((0, hidden), np.float32)
        self._deep_index, self._deep_rows = (
            np.zeros(0, np.int64),
            np.zeros((deepstack, 0, hidden), np.float32),
        )

    def between(self, start: int, end: int) -> dict[str, np.ndarray]:
        """Feeds of the chunk of tokens start .. end, in token order and counted from its start."""
        self._forget(start)
        while self._pending and int(self._pending[0][0][0]) < end:
            self._add(*self._pending.pop(0))
        last = np.searchsorted(self._index, end)
        feeds: dict[str, np.ndarray] = {
            "features": self._rows[:last],
            "feature_index": self._index[:last] - start,
        }
        if len(self._deep_rows):
            last = np.searchsorted(self._deep_index, end)
            feeds |= {
                "deepstack": self._deep_rows[:, :last],
                "deepstack_index": self._deep_index[:last] - start,
            }
        return feeds

    def _add(self, rows: np.ndarray, call: EncoderCall) -> None:
        assert self._encode is not None
        outputs = self._encode(call)
        assert len(outputs["features"]) == len(rows), (
            f"an encoder gave {len(outputs['features'])} rows for {len(rows)} tokens"
        )
        index = np.concatenate([self._index, rows])
        order = np.argsort(index, kind="stable")
        self._index, self._rows = index[order], np.concatenate([self._rows, outputs["features"]])[order]
        if "deepstack" in outputs:
            index = np.concatenate([self._deep_index, rows])
            order = np.argsort(index, kind="stable")
            self._deep_index = index[order]
            self._deep_rows = np.concatenate([self._deep_rows, outputs["deepstack"]], axis=1)[:, order]

    def _forget(self, start: int) -> None:
        first = np.searchsorted(self._index, start)
        self._index, self._rows = self._index[first:], self._rows[first:]
        first = np.searchsorted(self._deep_index, start)
        self._deep_index, self._deep_rows = self._deep_index[first:], self._deep_rows[:, first:]
