"""Checkpoints whose weights must not be read."""

from __future__ import annotations

import pytest


def never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every reading of a tensor's values or bytes fail the test."""
    from antiphon.graphs.checkpoints.checkpoint import Checkpoint

    def refuse(self: object, name: str) -> None:
        raise AssertionError(f"tensor {name} was read")

    monkeypatch.setattr(Checkpoint, "read", refuse)
    monkeypatch.setattr(Checkpoint, "digest", refuse)
