"""What the tests of the training share: where its code is found, and one checkpoint to start from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import antiphon.scripts

# The wheel leaves the training out, and the tests run against the installed wheel: then the tree's own files
# are added to the installed package.
if importlib.util.find_spec("antiphon.scripts.train_tiny") is None:
    antiphon.scripts.__path__.append(str(Path(__file__).resolve().parents[2] / "scripts"))


@pytest.fixture(scope="session")
def start_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random checkpoint that every training of the tiny model starts from. Read only."""
    from antiphon.scripts.train_tiny.shape import starting_checkpoint

    return starting_checkpoint(tmp_path_factory.mktemp("train_tiny") / "start")
