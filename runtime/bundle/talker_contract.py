"""What a Talker is fed, as one record: the family writes it from the configuration, the manifest holds it, everything else reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Layout = Literal["summed", "interleaved"]
"""How the text of an answer and its frames share rows: see TalkerContract.layout."""
VoiceKind = Literal["codec_id", "frames"]


@dataclass(frozen=True)
class TalkerContract:
    """What the Talker of a checkpoint was trained to be fed."""

    layout: Layout
    """`summed`: text row k and frame k - 1 are parts of one row (the dual track). `interleaved`: each has a row of its own, in an order that a policy
    decides (aria.Policy)."""
    embeds_text: bool
    """Whether the Talker embeds text ids by a table of its own, whose size is the constant `text_vocab_size` of its stage; else it projects the
    Thinker's embedding of them."""
    frame_input: Literal["frame_rows", "frame_codes"]
    """The input of the stage that whole frames go to: `frame_rows` float32 [frames, hidden], as the code predictor returns them, or `frame_codes` int64
    [frames, groups], of which the Talker makes the rows itself."""
    hidden_taps: Literal["media", "content"]
    """Whose hidden rows of the Thinker the prompt holds: of every token of audio, image and video (`media`), or of the content of every user turn,
    at most `hidden_rows` of them (`content`)."""
    hidden_rows: int
    """Most hidden rows of one user turn, evenly spaced over its content; 0: all."""
    takes_style: bool
    """Whether the prompt has a place for a style, in words or by a name of `speech_prompts.styles`."""
    takes_language: bool
    """Whether the prompt has a place for a language of `speech_prompts.languages`."""
    voice: VoiceKind
    """What a voice is. `codec_id`: a codec id in the assistant part, whose other rows join text and codec ids (talker_prompt). `frames`: codec frames in a
    system part of its own, in a prompt whose rows hold one thing each (interleaved_prompt)."""


PROMPTS: dict[VoiceKind, dict[str, Any]] = {
    "codec_id": {
        "layout": "summed", "frame_input": "frame_rows", "hidden_taps": "media", "hidden_rows": 0, "takes_style": False, "takes_language": False,
    },
    "frames": {"frame_input": "frame_codes", "hidden_taps": "content"},
}  # fmt: skip
"""What else a contract says whose voices are of a kind, because the prompt of that kind holds no more and no less."""
