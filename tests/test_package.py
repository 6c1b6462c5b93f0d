"""The package: what the wheel holds, and what importing it costs."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "onnx", "onnx_ir", "onnxscript", "transformers", "safetensors", "PIL", "av")
PACKAGE_FOLDERS = ("export", "graphs", "plugins", "runtime", "scripts")
LEFT_OUT = {ROOT / "scripts" / "train_tiny", ROOT / "scripts" / "goldens"}
"""Training the shipped model and making golden files are matters of the repository, not of the package."""


def in_a_new_process(code: str, folder: Path) -> str:
    """What `code` prints in a fresh interpreter that starts in `folder`."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def loaded_modules(code: str, folder: Path) -> set[str]:
    """The top-level modules in memory after `code`."""
    return set(
        in_a_new_process(
            f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})", folder
        )
        .splitlines()[-1]
        .split()
    )


def source_files() -> set[str]:
    """Every file of the tree that belongs into the wheel, relative to the root."""
    files = {path.name for path in ROOT.glob("*.py")} | {"py.typed"}
    for name in PACKAGE_FOLDERS:
        found = [
            path for path in (ROOT / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ]
        files |= {path.relative_to(ROOT).as_posix() for path in found if not LEFT_OUT & set(path.parents)}
    return files


def test_import_loads_no_heavy_library(tmp_path: Path) -> None:
    assert not loaded_modules("import antiphon", tmp_path) & {
        *HEAVY,
        "numpy",
        "onnxruntime",
        "tokenizers",
        "rich",
        "typer",
    }


@pytest.mark.parametrize(
    "module",
    [
        "runtime.omni",
        "runtime.bundle.manifest",
        "runtime.conversation",
        "scripts.cli",
        "graphs.random.new_checkpoint",
    ],
)
def test_a_runtime_module_loads_neither_torch_nor_onnx(module: str, tmp_path: Path) -> None:
    assert not loaded_modules(f"import antiphon.{module}", tmp_path) & set(HEAVY)


def test_the_facade_loads_no_engine_library(tmp_path: Path) -> None:
    assert "onnxruntime" not in loaded_modules("import antiphon.runtime.omni", tmp_path)


def test_a_whole_conversation_loads_neither_torch_nor_onnx(tiny_bundle: Path, tmp_path: Path) -> None:
    ask = "omni.generate([{'role': 'user', 'content': 'hi'}], max_text_tokens=2, max_frames=2)"
    code = f"import antiphon\nwith antiphon.load({str(tiny_bundle)!r}) as omni:\n    {ask}"
    assert not loaded_modules(code, tmp_path) & set(HEAVY)


def test_every_public_name_is_fetched_when_it_is_first_used() -> None:
    antiphon = importlib.import_module("antiphon")
    for name in antiphon.__all__:
        assert getattr(antiphon, name) is not None
    assert set(antiphon.__all__) <= set(dir(antiphon))


def test_an_unknown_name_is_an_attribute_error() -> None:
    antiphon = importlib.import_module("antiphon")
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        _ = antiphon.sing


def test_the_installed_files_are_those_of_the_tree() -> None:
    try:
        installed = importlib.metadata.files("antiphon") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("antiphon is not installed as a wheel: it runs from the tree")
    found = {
        path.relative_to("antiphon").as_posix()
        for path in installed
        if path.parts[0] == "antiphon" and "__pycache__" not in path.parts
    }
    assert found == source_files()


def test_every_folder_with_code_is_a_listed_package() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    )
    folders = {Path(file).parent for file in source_files() if file.endswith(".py")}
    assert listed == {".".join(["antiphon", *folder.parts]) for folder in folders}


def test_the_version_is_the_installed_one() -> None:
    try:
        installed = importlib.metadata.version("antiphon")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("antiphon is not installed as a wheel: it runs from the tree")
    assert importlib.import_module("antiphon").__version__ == installed
