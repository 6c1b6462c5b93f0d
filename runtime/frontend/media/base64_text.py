"""Decode base64 text."""

from __future__ import annotations

import base64
import binascii
import re

from .media_policy import MediaPolicy

SPACE = re.compile(r"\s")


def decode_base64(text: str, kind: str, policy: MediaPolicy) -> bytes | None:
    """The bytes of base64 text, whose white space is ignored; None for any other text.

    `kind` (audio, image, video) is used in messages. Raises AntiphonError, before decoding, for more bytes
    than `policy` allows.
    """
    encoded = len(text) if SPACE.search(text) is None else len(text) - sum(map(text.count, " \t\n\r\f\v"))
    policy.check_data_bytes(encoded * 3 // 4 - min(2, text[-64:].count("=")), kind)
    try:
        return base64.b64decode(text if encoded == len(text) else "".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
