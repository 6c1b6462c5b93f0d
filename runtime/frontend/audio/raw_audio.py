"""Audio without a header, as the OpenAI Realtime API and telephone gateways send it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...bundle.errors import InvalidInput
from ...bundle.said import short
from ..media.base64_text import decode_base64
from ..media.media_policy import LOCAL, MediaPolicy

RAW_FORMATS = {"pcm16": 24000, "pcmu": 8000, "pcma": 8000}
"""Formats without a header and their default sample rates in Hz: 16-bit little-endian, mu-law and A-law, with
one channel.
"""
_RAW_NAMES = {
    "pcm16": "pcm16",
    "pcm": "pcm16",
    "audio/pcm": "pcm16",
    "pcm_s16le": "pcm16",
    "g711_ulaw": "pcmu",
    "audio/pcmu": "pcmu",
    "pcmu": "pcmu",
    "mulaw": "pcmu",
    "g711_alaw": "pcma",
    "audio/pcma": "pcma",
    "pcma": "pcma",
    "alaw": "pcma",
}
FILE_FORMATS = (
    "wav",
    "mp3",
    "flac",
    "ogg",
    "oga",
    "opus",
    "m4a",
    "mp4",
    "aac",
    "webm",
    "mkv",
    "mpga",
    "mpeg",
    "aiff",
    "aif",
    "caf",
    "au",
    "w64",
    "rf64",
)
"""Formats with a header. The name is checked, but the file's content decides the format."""
_BEGINNINGS = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff", b"\x1a\x45\xdf\xa3", b".snd")


def raw_format(name: Any, where: str) -> str | None:
    """The key of RAW_FORMATS that `name` stands for; None for a file format and if `name` is None.

    `name`: text such as wav or pcm16, a media type, or the Realtime session's {"type": "audio/pcm", "rate":
    24000}. Raises AntiphonError for an unknown format.
    """
    if name is None:
        return None
    rate = None
    if isinstance(name, Mapping):
        name, rate = name.get("type"), name.get("rate")
    plain = name.strip().lower() if isinstance(name, str) else ""
    raw = _RAW_NAMES.get(plain)
    if raw is not None:
        if rate is not None and rate != RAW_FORMATS[raw]:
            raise InvalidInput(
                f"{where}: format has the rate {short(rate)}, expected {RAW_FORMATS[raw]} for {plain}; "
                "give another as sample_rate."
            )
        return raw
    if plain.removeprefix("audio/").removeprefix("x-") in FILE_FORMATS:
        return None
    raise InvalidInput(
        f"{where}: format is {short(name)}, expected one of {', '.join((*FILE_FORMATS, *_RAW_NAMES))}."
    )


def raw_samples(source: Any, coding: str, where: str, policy: MediaPolicy = LOCAL) -> np.ndarray:
    """The samples in `source`, which is bytes, base64 or a data URL.

    Returns int16 [samples] for 16-bit PCM, float32 [samples] for mu-law and A-law. `coding` is a key of
    RAW_FORMATS. Raises AntiphonError for other sources, for no data, for an incomplete sample and for more
    bytes than `policy` allows.
    """
    if isinstance(source, str):
        data = decode_base64(
            source.partition(",")[2] if source[:5].lower() == "data:" else source, "audio", policy
        )
        if data is None:
            raise InvalidInput(
                f"{where} is sound of the format {coding}, expected base64; found {short(source)}."
            )
    elif isinstance(source, bytes | bytearray | memoryview):
        policy.check_data_bytes(memoryview(source).nbytes, "audio")
        data = bytes(source)
    else:
        raise InvalidInput(
            f"{where} is sound of the format {coding}, expected base64 or bytes; found {short(source)}."
        )
    if not data:
        raise InvalidInput(f"{where} is sound of 0 bytes; give data with content.")
    if coding == "pcm16":
        if len(data) % 2:
            raise InvalidInput(
                f"{where} is 16-bit sound of {len(data):,} bytes, expected an even number; "
                "send whole samples."
            )
        return np.frombuffer(data, "<i2").astype(np.int16)
    return (_MU_LAW if coding == "pcmu" else _A_LAW)[np.frombuffer(data, np.uint8)]


def realtime_audio(source: Any, where: str, policy: MediaPolicy = LOCAL) -> np.ndarray | None:
    """The samples of a Realtime item, whose base64 has no header: int16 [samples] at 24 kHz.

    Returns None for a path, an array, and base64 of a file with a header. Raises AntiphonError as
    `raw_samples`.
    """
    if not isinstance(source, str) or not source.strip():
        return None
    data = decode_base64(source, "audio", policy)
    if data is None or data.startswith(_BEGINNINGS) or data[4:8] == b"ftyp":
        return None
    return raw_samples(data, "pcm16", where, policy)


def _mu_law() -> np.ndarray:
    """The sample of each mu-law code, float32 [256]. Source: ITU-T G.711, table 2a."""
    code = ~np.arange(256).astype(np.uint8)
    size = (((code & 15).astype(np.int32) << 3) + 132 << ((code >> 4) & 7).astype(np.int32)) - 132
    return (np.where(code & 128, -size, size) / 32768).astype(np.float32)


def _a_law() -> np.ndarray:
    """The sample of each A-law code, float32 [256]. Source: ITU-T G.711, table 1a."""
    code = np.arange(256).astype(np.uint8) ^ 0x55
    exponent, mantissa = ((code >> 4) & 7).astype(np.int32), ((code & 15).astype(np.int32) << 4) + 8
    size = np.where(exponent > 0, (mantissa + 256) << np.maximum(exponent - 1, 0), mantissa)
    return (np.where(code & 128, size, -size) / 32768).astype(np.float32)


_MU_LAW, _A_LAW = _mu_law(), _a_law()
