from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def exported(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The stages of the tiny bundle by name, from a copy: the onnx checker refuses files that are hard links, as those shared with the cache are."""
    import torch

    from antiphon.graphs.checkpoint import Checkpoint
    from antiphon.graphs.families import stages
    from antiphon.runtime.bundle import read_manifest

    from .exported import Exported

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = shutil.copytree(tiny_bundle / "stages", tmp_path_factory.mktemp("exported") / "stages")
    checkpoint, entries = Checkpoint(tiny_checkpoint), read_manifest(tiny_bundle).stages
    yield {stage.name: Exported(stage, checkpoint, folder / stage.name, entries[stage.name]) for stage in stages(checkpoint.config)}
    torch.set_num_threads(threads)
