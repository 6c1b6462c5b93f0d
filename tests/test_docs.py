"""Every command and program shown in README.md and docs/ is run, page by page and from top to bottom, on the tiny bundle."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.runtime.bundle import read_manifest
from antiphon.runtime.events import AudioDelta, Done, Reply, TextDelta, Timings
from antiphon.runtime.options import ReplyOptions

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if re.search(r"^```(sh|python)$", page.read_text(encoding="utf-8"), re.M)]

# What .ci/run itself is or has done before the tests: the environment, the installation, and the tests.
SET_UP = ('python3 -m venv .venv && export PATH="$PWD/.venv/bin:$PATH" &&\n', 'pip install torch==2.13.0 ".[build,media]" &&\n', "bash .ci/run\n")


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, content) of every sh and python block of `page`."""
    return re.findall(r"^```(sh|python)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def workplace(tmp_path: Path, tiny_checkpoint: Path, tiny_bundle: Path) -> Path:
    """A folder like the repository's root after the README's first command."""
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    shutil.copytree(tiny_checkpoint, tmp_path / "demo" / "checkpoint")
    shutil.copytree(tiny_bundle, tmp_path / "demo" / "bundle")
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `antiphon`, `python` and the tools of the extras are this interpreter's."""
    folder = tmp_path_factory.mktemp("bin")
    for name, arguments in (("antiphon", "-m antiphon"), ("python", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return os.environ | {"PATH": os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_shown_command_runs(page: Path, workplace: Path, environment: dict[str, str]) -> None:
    if page.name == "README.md":
        shutil.rmtree(workplace / "demo")  # its first command makes these
    for language, content in blocks(page):
        for line in SET_UP:
            content = content.replace(line, "")
        command = ["bash", "-euo", "pipefail", "-c", content] if language == "sh" else [sys.executable, "-c", content]
        done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, f"{page.name}:\n{content}\nprinted\n{done.stdout}{done.stderr}"
    if page.name == "README.md":
        assert (workplace / "answer.wav").stat().st_size > 44


def test_every_linked_page_exists() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_readme_starts_with_the_command_that_sets_everything_up() -> None:
    language, content = blocks(ROOT / "README.md")[0]
    assert language == "sh"
    assert content.startswith(SET_UP[0] + SET_UP[1])


def test_the_tables_of_the_stages_page_are_those_of_a_bundle(tiny_bundle: Path) -> None:
    sections = re.split(r"^## (\w+)$", (ROOT / "docs" / "stages.md").read_text(encoding="utf-8"), flags=re.M)[1:]
    shown = dict(zip(sections[::2], sections[1::2], strict=True))
    stages = read_manifest(tiny_bundle).stages
    assert shown.keys() == stages.keys()
    for name, stage in stages.items():
        for kind, specs in (("input", stage.inputs), ("output", stage.outputs)):
            table = re.search(rf"^\| {kind} \|.*?\n\n", shown[name] + "\n", re.M | re.S)
            assert table is not None, f"{name} has no table of {kind}s"
            rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \[(.*?)\] \|", table[0], re.M)
            assert [(row[0], row[1]) for row in rows] == [(spec.name, spec.dtype) for spec in specs], f"{name}: {kind}s"
            for row, spec in zip(rows, specs, strict=True):
                axes = row[2].split(", ")
                assert len(axes) == len(spec.shape), f"{name}.{spec.name}"
                for written, axis in zip(axes, spec.shape, strict=True):
                    assert written == str(axis) or (written.isupper() and isinstance(axis, int)), f"{name}.{spec.name}: {written} is {axis}"


@pytest.mark.parametrize("kind", [ReplyOptions, TextDelta, AudioDelta, Done, Reply, Timings])
def test_the_python_page_names_every_option_and_field(kind: type) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in page] == []
