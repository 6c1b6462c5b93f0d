from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def exported(tiny_checkpoint: Path, tiny_bundle: Path) -> dict[str, Any]:
    """The stages of the tiny bundle by name, where they lie. Read only."""
    from antiphon.graphs.checkpoints.checkpoint import Checkpoint
    from antiphon.graphs.families.registry import stages
    from antiphon.runtime.bundle.manifest import read_manifest

    from .exported import Exported

    checkpoint, entries = Checkpoint(tiny_checkpoint), read_manifest(tiny_bundle).stages
    return {
        stage.name: Exported(stage, checkpoint, tiny_bundle / "stages" / stage.name, entries[stage.name])
        for stage in stages(checkpoint.config)
    }
