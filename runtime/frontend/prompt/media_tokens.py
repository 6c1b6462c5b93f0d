"""The tokens of media in a prompt: one per feature, and the marks and timestamps around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...bundle.errors import BrokenBundle
from .positions import MediaItem, PositionRules, interleave
from .timestamps import AudioClock, Encode, TextualTime, audio_piece, video_tokens


class MediaTokens:
    """Makes the tokens of media as one bundle writes them."""

    def __init__(
        self,
        ids: Mapping[str, int],
        clock: AudioClock,
        rules: PositionRules,
        time: TextualTime | None,
        encode: Encode,
    ) -> None:
        """`ids`: the media tokens by kind (audio, image, video), audio_start and audio_end. `rules`: those of
        the Thinker. `time`: None where positions give the time. `encode`: tokens of a timestamp.
        """
        self._media = {kind: ids[kind] for kind in ("audio", "image", "video")}
        self._audio_start, self._audio_end = ids["audio_start"], ids["audio_end"]
        self._clock, self._rules, self._time, self._encode = clock, rules, time, encode

    def expand(self, rendered: np.ndarray, media: Sequence[MediaItem]) -> tuple[np.ndarray, list[np.ndarray]]:
        """The ids with each placeholder replaced by one token per feature, and the indices of each piece's
        tokens.

        Raises AntiphonError if the placeholders of `rendered`, int64 [tokens], are not those of `media`.
        """
        places = np.flatnonzero(np.isin(rendered, list(self._media.values())))
        if [self._media[item.kind] for item in media] != rendered[places].tolist():
            raise BrokenBundle(
                f"The chat template wrote {len(places)} media placeholders for {len(media)} pieces of media, "
                "or in another order; use the template of the checkpoint."
            )
        pieces: list[np.ndarray] = []
        places_of: list[np.ndarray] = []
        length = cursor = 0
        for item, place in zip(media, places.tolist(), strict=True):
            tokens = self._tokens(item)
            # With textual time, a video has its own marks, which replace those around the placeholder.
            marks = int(self._time is not None and item.kind == "video")
            pieces += [rendered[cursor : place - marks], tokens]
            length += place - marks - cursor
            places_of.append(np.arange(length, length + len(tokens)))
            length, cursor = length + len(tokens), place + 1 + marks
        return np.concatenate([*pieces, rendered[cursor:]]), places_of

    def audio_tokens(self, first: int, tokens: int) -> np.ndarray:
        """int64 [tokens and timestamps] of a clip, starting at its token `first`."""
        if self._time is None:
            return np.full(tokens, self._media["audio"], np.int64)
        return audio_piece(first, tokens, self._media["audio"], self._clock, self._time.stamps, self._encode)

    def _tokens(self, item: MediaItem) -> np.ndarray:
        """int64 [tokens] of one piece of media.

        Source: Qwen3OmniMoeProcessor (replace_..._token); the module `timestamps` for textual time.
        """
        if item.kind == "audio":
            return self.audio_tokens(0, item.audio_tokens)
        merged = (item.grid[1] // self._rules.spatial_merge_size) * (
            item.grid[2] // self._rules.spatial_merge_size
        )
        if self._time is not None and item.kind == "video":
            return video_tokens(item, merged, self._time.marked, self._clock, self._time.stamps, self._encode)
        if not item.audio_tokens:
            return np.full(item.grid[0] * merged, self._media[item.kind], np.int64)
        # Video tokens are sorted by time, in units of audio tokens; at equal times they come before the audio
        # token.
        times = np.repeat(
            np.arange(item.grid[0]) * item.seconds_per_grid * float(self._rules.position_id_per_seconds),
            merged,
        )
        order = interleave(times, np.arange(item.audio_tokens, dtype=np.float64))
        tokens = np.where(order < len(times), self._media[item.kind], self._media["audio"])
        return np.concatenate([[self._audio_start], tokens, [self._audio_end]]).astype(np.int64)
