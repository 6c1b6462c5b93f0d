from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def one_torch_thread() -> Iterator[None]:
    """The tensors are tiny: a second thread of PyTorch only waits."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pairs(one_torch_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """From the name of a variant to its Pair; each is made once a session."""
    pytest.importorskip("transformers")
    from .decoder_pair import make_pair

    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            made[name] = make_pair(name, tmp_path_factory.mktemp("pair"))
        return made[name]

    return get
