"""The targets, the precisions and the names of stages that the runtime knows."""

from __future__ import annotations

from .specs import Precision

TARGETS = ("cpu",)
"""Targets that a bundle can be built for."""
PRECISIONS: dict[str, Precision] = {"fp32": Precision()}
"""Names for `antiphon build --precision`, and the number formats of each."""
SPEECH = ("talker", "predictor", "code2wav")
"""The stages that a bundle needs to speak."""
NOT_RUN = ("mtp",)
"""Stages that are built and verified, but that no stream runs: their weights are not loaded."""
