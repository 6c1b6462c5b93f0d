"""The registry of families: who is known by which model_type, what a registration refuses,
and that nobody else knows a family by its name.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import antiphon
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.families import registry
from antiphon.graphs.families.base import Family
from antiphon.runtime.bundle.errors import AntiphonError

ROOT = Path(antiphon.__file__).parent
PRODUCT = ("runtime", "plugins", "graphs", "export", "scripts")
MODEL_TYPES = {model_type for known in registry.families() for model_type in known.model_types}


def other(name: str = "other_omni", **changes: Any) -> Family:
    """A record under another name, which reads nothing that the published ones read."""
    apart: dict[str, Any] = {"aliases": (), "thinkers": {}, "parts_alone": {}}
    return dataclasses.replace(registry.family("qwen3_omni_moe"), name=name, **apart | changes)


@pytest.fixture
def registered() -> Iterator[Family]:
    made = other(aliases=("other_omni_next",))
    registry.register(made)
    yield made
    registry.unregister(made.name)


def test_every_name_finds_the_record_of_that_name() -> None:
    assert registry.names() == ("qwen3_omni_moe", "qwen3_5_omni") and registry.DEFAULT in registry.names()
    assert [known.name for known in registry.families()] == list(registry.names())


def test_no_model_type_belongs_to_two_families() -> None:
    assert len(MODEL_TYPES) == sum(len(known.model_types) for known in registry.families())


@pytest.mark.parametrize("name", ["", "qwen2", "qwen3_omni_moe_thinker", "x" * 10**6])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(
        AntiphonError, match="^Unknown family '.*'?; expected one of qwen3_omni_moe, qwen3_5_omni.$"
    ) as raised:
        registry.family(name)
    assert len(str(raised.value)) < 300


def test_a_registered_family_is_known_until_it_is_unregistered() -> None:
    made = other()
    registry.register(made)
    assert registry.names()[-1] == "other_omni" and registry.family("other_omni") is made
    registry.unregister("other_omni")
    assert "other_omni" not in registry.names()
    with pytest.raises(AntiphonError, match="Unknown family 'other_omni'"):
        registry.family("other_omni")


@pytest.mark.parametrize(
    "taken",
    [
        {"name": "qwen3_5_omni"},
        {"aliases": ("qwen3_omni_next",)},
        {"thinkers": {"qwen3_5": None}},
        {"parts_alone": {"qwen3_omni_moe_talker": ""}},
    ],
)
def test_a_family_with_a_model_type_of_another_one_is_refused(taken: dict[str, Any]) -> None:
    with pytest.raises(
        AntiphonError, match="cannot be registered: model_type .* is taken by the family qwen3_"
    ):
        registry.register(other(**taken))
    assert registry.names() == tuple(registry.MODULES)


def test_a_family_is_registered_once(registered: Family) -> None:
    with pytest.raises(AntiphonError, match="other_omni, other_omni_next is taken by the family other_omni"):
        registry.register(registered)


@pytest.mark.parametrize("name", ["qwen3_omni_moe", "nothing"])
def test_only_a_registered_family_can_be_unregistered(name: str) -> None:
    with pytest.raises(AntiphonError, match=f"^No family '{name}' is registered; expected one of none.$"):
        registry.unregister(name)


def test_a_record_with_the_reader_of_another_family_reads_checkpoints_of_its_own(
    registered: Family, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    published = read_config(tiny_checkpoint)
    (tmp_path / "config.json").write_text(
        json.dumps(published.raw | {"model_type": registered.aliases[0]}), encoding="utf-8"
    )
    found = read_config(tmp_path)
    assert (
        found.family == registered.name
        and dataclasses.replace(found, family=published.family, left_out=published.left_out) == published
    )


@pytest.mark.parametrize("stated", ["gpt2", None, 7, [], {}, ["qwen3_omni_moe"]])
def test_an_unknown_model_type_is_refused_with_all_known_ones(
    stated: object, registered: Family, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": stated}), encoding="utf-8")
    with pytest.raises(AntiphonError, match="unknown model family") as raised:
        read_config(tmp_path)
    expected = (
        "qwen3_omni_moe, qwen3_5_omni, other_omni, qwen3_omni_next, other_omni_next, qwen3_omni_moe_thinker, "
        "qwen3_omni_next_thinker, qwen3_5_moe, "
    )
    assert f"one of {expected}qwen3_5, qwen3_5_moe_text, qwen3_5_text." in str(raised.value)


def test_importing_the_registry_loads_no_family_and_no_library() -> None:
    code = "import sys, antiphon.graphs.families.registry as r; r.names(); print(*sys.modules)"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert not loaded & {
        "numpy",
        "torch",
        "tokenizers",
        "antiphon.graphs.config",
        *(f"antiphon.graphs.families{name}" for name in registry.MODULES.values()),
    }


def test_records_load_neither_torch_nor_a_tokenizer() -> None:
    code = "import sys, antiphon.graphs.families.registry as r; r.families(); print(*sys.modules)"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert not loaded & {"torch", "onnx", "onnx_ir", "tokenizers", "transformers"}


def test_no_other_product_file_names_a_model_type() -> None:
    """What depends on the family stands in its record; a sentence may mention one."""
    homes = {ROOT / "graphs" / "families" / name for name in registry.MODULES} | {
        ROOT / "graphs" / "families" / "registry.py"
    }
    found = []
    for file in (file for part in PRODUCT for file in (ROOT / part).rglob("*.py")):
        if not homes & {file, *file.parents}:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            texts = [
                node
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
            found += [
                f"{file.relative_to(ROOT)}:{node.lineno}" for node in texts if node.value in MODEL_TYPES
            ]
    assert found == []
