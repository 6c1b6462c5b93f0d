"""The tiny checkpoint's front end for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.export.frontend import write_frontend
from antiphon.graphs.read_config import read_config
from antiphon.runtime.frontend.prompt import FrontEnd


@pytest.fixture(scope="session")
def frontend_folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frontend")
    write_frontend(tiny_checkpoint, read_config(tiny_checkpoint), folder)
    return folder


@pytest.fixture(scope="session")
def front_end(frontend_folder: Path) -> FrontEnd:
    return FrontEnd(frontend_folder)
