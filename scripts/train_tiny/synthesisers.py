"""The voices, which now live in scripts/quality."""

from ..quality.synthesisers import HELD_OUT_VOICE, RATE, SEEN_VARIANTS, synthesise

__all__ = ["HELD_OUT_VOICE", "RATE", "SEEN_VARIANTS", "synthesise"]
