"""One tiny checkpoint and its front end for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.export.frontend import write_frontend
from antiphon.graphs.config import read_config
from antiphon.graphs.new_checkpoint import new_checkpoint
from antiphon.runtime.frontend.prompt import FrontEnd


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def frontend_folder(checkpoint: Path) -> Path:
    folder = checkpoint.parent / "frontend"
    write_frontend(checkpoint, read_config(checkpoint), folder)
    return folder


@pytest.fixture(scope="session")
def front_end(frontend_folder: Path) -> FrontEnd:
    return FrontEnd(frontend_folder)
