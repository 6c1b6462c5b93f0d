"""Checkpoints whose files somebody spoiled:
each file of both families either works or is one bounded sentence, soon and in bounded memory.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")

from antiphon.export.frontend import write_frontend
from antiphon.export.plan import plan
from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.checkpoints.torch_archive import read_torch_archive
from antiphon.graphs.families.qwen3_5_omni.codec_folder import read_code2wav_config

from .hostile import damaged, spoiled, spoiled_bytes, works_or_one_sentence

MEMORY = 3 * 2**30
"""Bytes of address space beyond what the tests hold already."""
FAMILIES = ["tiny_checkpoint", "hybrid_checkpoint"]
FRONTEND = [
    "tokenizer_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
]


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        if Path("/proc/self/statm").exists()
        else None
    )
    if used is not None:
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Links to a tiny checkpoint, file by file."""
    return Path(
        shutil.copytree(
            request.getfixturevalue(request.param), tmp_path / "checkpoint", copy_function=os.link
        )
    )


def try_all(
    path: Path, contents: Callable[[bytes], st.SearchStrategy[bytes]], call: Callable[[], Any], examples: int
) -> None:
    """`call` with `examples` spoiled contents of the file `path`; at least one of them must be refused."""
    content, said = path.read_bytes(), set()
    path.unlink()  # the link: the file itself is every test's

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(contents(content))
    def attempt(spoilt: bytes) -> None:
        path.write_bytes(spoilt)
        said.add(works_or_one_sentence(call))

    attempt()
    assert said - {None}


@pytest.mark.parametrize("folder", FAMILIES, indirect=True)
def test_config_json_is_planned_or_refused(folder: Path) -> None:
    for weights in folder.glob("model*"):
        weights.unlink()
    try_all(folder / "config.json", spoiled_bytes, lambda: plan(folder), 60)


@pytest.mark.parametrize("folder", FAMILIES, indirect=True)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_weights_are_opened_or_refused(folder: Path, name: str) -> None:
    try_all(folder / name, spoiled_bytes, lambda: Checkpoint(folder), 60)


@pytest.mark.parametrize("folder", FAMILIES[:1], indirect=True)
def test_a_safetensors_header_is_read_or_refused(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    content = shard.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = folder / "header"
    header.write_bytes(content[8 : 8 + length])

    def call() -> None:
        spoilt = header.read_bytes()
        shard.unlink()
        shard.write_bytes(len(spoilt).to_bytes(8, "little") + spoilt + content[8 + length :])
        Checkpoint(folder)

    try_all(header, spoiled_bytes, call, 60)


@pytest.mark.parametrize("folder", FAMILIES, indirect=True)
@pytest.mark.parametrize("name", FRONTEND)
def test_a_front_end_is_written_or_refused(folder: Path, name: str) -> None:
    config = read_config(folder)
    try_all(
        folder / name, spoiled_bytes, lambda: write_frontend(folder, config, folder.parent / "frontend"), 25
    )


@pytest.mark.parametrize("folder", FAMILIES[:1], indirect=True)
@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_vocabulary_with_merges_is_read_or_refused(folder: Path, name: str) -> None:
    (folder / "tokenizer.json").unlink()
    config = read_config(folder)
    contents = spoiled_bytes if name == "vocab.json" else damaged
    try_all(folder / name, contents, lambda: write_frontend(folder, config, folder.parent / "frontend"), 25)


@pytest.mark.parametrize("folder", FAMILIES[1:], indirect=True)
def test_the_yaml_of_a_codec_is_read_or_refused(folder: Path) -> None:
    def contents(content: bytes) -> st.SearchStrategy[bytes]:
        return st.one_of(
            damaged(content),
            spoiled(yaml.safe_load(content)).map(lambda tree: yaml.dump(tree, allow_unicode=True).encode()),
        )

    codec = folder / "codec_decode_online"
    try_all(codec / "config.yaml", contents, lambda: read_code2wav_config(codec), 100)


@pytest.mark.parametrize("folder", FAMILIES[1:], indirect=True)
def test_the_archive_of_a_codec_is_read_or_refused(folder: Path) -> None:
    path = folder / "codec_decode_online" / "model_weights.pt"
    try_all(path, damaged, lambda: read_torch_archive(path), 60)
