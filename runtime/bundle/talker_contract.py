"""The inputs that a Talker expects, as one record. The family writes it from the configuration, the manifest
stores it, and other code reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Layout = Literal["summed", "interleaved"]
"""The way in which the text of an answer and its frames share rows: see TalkerContract.layout."""
VoiceKind = Literal["codec_id", "frames"]


@dataclass(frozen=True)
class TalkerContract:
    """The inputs with which the Talker of a checkpoint was trained."""

    layout: Layout
    """`summed`: text row k and frame k - 1 are parts of one row (the dual track). `interleaved`: each has its
    own row, in an order that a policy decides (aria.Policy).
    """
    embeds_text: bool
    """Whether the Talker embeds text ids with its own table, whose size is the constant `text_vocab_size` of
    its stage. Otherwise it projects the Thinker's embedding of them.
    """
    frame_input: Literal["frame_rows", "frame_codes"]
    """The stage's input for whole frames: `frame_rows` float32 [frames, hidden], as the code predictor
    returns them, or `frame_codes` int64 [frames, groups], from which the Talker computes the rows.
    """
    hidden_taps: Literal["media", "content"]
    """The tokens whose hidden rows of the Thinker are in the prompt: all tokens of audio, image and video
    (`media`), or at most `hidden_rows` tokens of the content of each user turn (`content`).
    """
    hidden_rows: int
    """The most hidden rows of one user turn, evenly spaced over its content; 0: all."""
    takes_style: bool
    """Whether the prompt can hold a style, in words or as a name of `speech_prompts.styles`."""
    takes_language: bool
    """Whether the prompt can hold a language of `speech_prompts.languages`."""
    voice: VoiceKind
    """The form of a voice. `codec_id`: a codec id in the assistant part, whose other rows join text and codec
    ids (talker_prompt). `frames`: codec frames in their own system part, in a prompt whose rows hold one
    thing each (interleaved_prompt).
    """


PROMPTS: dict[VoiceKind, dict[str, Any]] = {
    "codec_id": {
        "layout": "summed",
        "frame_input": "frame_rows",
        "hidden_taps": "media",
        "hidden_rows": 0,
        "takes_style": False,
        "takes_language": False,
    },
    "frames": {"frame_input": "frame_codes", "hidden_taps": "content"},
}
"""The other fields of a contract that each kind of voice fixes, since its prompt supports only these
values.
"""
