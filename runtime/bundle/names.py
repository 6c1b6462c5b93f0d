"""The one list of targets and precisions, and the names of the stages that the runtime knows."""

from __future__ import annotations

from .specs import Precision

TARGETS = ("cpu",)
"""What a bundle can be built for."""
PRECISIONS: dict[str, Precision] = {"fp32": Precision()}
"""What `antiphon build --precision` takes, and the number formats that each name stands for."""
SPEECH = ("talker", "predictor", "code2wav")
"""The stages without which a bundle does not speak."""
NOT_RUN = ("mtp",)
"""Stages that are built and verified, and that no stream runs: their weights are not loaded."""
