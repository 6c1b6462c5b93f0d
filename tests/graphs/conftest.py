from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """From the name of a variant to its Pair; each is made once a session."""
    pytest.importorskip("transformers")
    from .decoder_pair import make_pair

    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            made[name] = make_pair(name, tmp_path_factory.mktemp("pair"))
        return made[name]

    return get
