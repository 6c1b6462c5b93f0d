"""Every command and program shown in README.md and docs/ is run, page by page and from top to bottom,
on the bundles of tiny checkpoints.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.runtime.bundle.manifest import read_manifest
from antiphon.runtime.events import AudioDelta, Done, Reply, TextDelta, Timings
from antiphon.runtime.history import HistoryMessage
from antiphon.runtime.options import ReplyOptions

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if re.search(r"^```(sh|python)$", page.read_text(encoding="utf-8"), re.M)
]

# What .ci/run itself is or has done before the tests: the environment, the installation, and the tests.
SET_UP = (
    'python3 -m venv .venv && export PATH="$PWD/.venv/bin:$PATH" &&\n',
    'pip install torch==2.13.0 ".[build,media]" &&\n',
    "bash .ci/run\n",
)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, content) of every sh and python block of `page`."""
    return re.findall(r"^```(sh|python)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def workplace(
    tmp_path: Path,
    tiny_checkpoint: Path,
    tiny_bundle: Path,
    hybrid_checkpoint: Path,
    hybrid_bundle: Path,
    pretrained_bundle: Path,
) -> Path:
    """A folder like the repository's root after the commands of the README that make checkpoints and bundles,
    with their stages in the cache.
    """
    for folder in ("docs/examples", "graphs/pretrained"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    made = {
        "checkpoint": tiny_checkpoint,
        "bundle": tiny_bundle,
        "checkpoint-3.5": hybrid_checkpoint,
        "bundle-3.5": hybrid_bundle,
    }
    for name, folder in made.items():
        shutil.copytree(folder, tmp_path / "demo" / name)
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `antiphon`, `python` and the tools of the extras are this interpreter's."""
    folder = tmp_path_factory.mktemp("bin")
    for name, arguments in (("antiphon", "-m antiphon"), ("python", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    return os.environ | {
        "PATH": os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_shown_command_runs(page: Path, workplace: Path, environment: dict[str, str]) -> None:
    if page.name == "README.md":
        shutil.rmtree(workplace / "demo")  # its commands make these
    for language, content in blocks(page):
        for line in SET_UP:
            content = content.replace(line, "")
        command = (
            ["bash", "-euo", "pipefail", "-c", content]
            if language == "sh"
            else [sys.executable, "-c", content]
        )
        done = subprocess.run(
            command, cwd=workplace, env=environment, capture_output=True, text=True, timeout=280
        )
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


def sections(text: str, heading: str) -> dict[str, str]:
    """The parts of `text` under each `heading` (## or ###), by its last word."""
    parts = re.split(rf"^{heading} (?:Family )?(\w+)$", text, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def table(section: str, kind: str) -> list[tuple[str, ...]] | None:
    """The cells of the table of inputs, outputs or states in `section`, a row a tensor;
    None where there is none.
    """
    found = re.search(rf"^\| {kind} \|.*?\n(?=\n)", section + "\n\n", re.M | re.S)
    if found is None:
        return None
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found[0].splitlines()[2:]]
    return [
        (name.strip(" `"), *(cell.strip("[]") for cell in cells))
        for names, *cells in rows
        for name in names.split(",")
    ]


def fits(written: str, shape: tuple[object, ...]) -> bool:
    """Whether the axes `written` on the page are those of `shape`:
    a symbol, a number, or capitals for a number of the checkpoint.
    """
    axes = written.split(", ")
    return len(axes) == len(shape) and all(
        word == str(axis) or (word.isupper() and isinstance(axis, int))
        for word, axis in zip(axes, shape, strict=True)
    )


@pytest.mark.parametrize("family", ["qwen3_omni_moe", "qwen3_5_omni"])
def test_the_tables_of_the_stages_page_are_those_of_a_bundle(
    family: str, request: pytest.FixtureRequest
) -> None:
    bundle: Path = request.getfixturevalue("tiny_bundle" if family == "qwen3_omni_moe" else "hybrid_bundle")
    families = {
        name: sections(text, "###")
        for name, text in sections((ROOT / "docs" / "stages.md").read_text(encoding="utf-8"), "##").items()
    }
    above, shown = families["qwen3_omni_moe"], families[family]
    stages = read_manifest(bundle).stages
    assert shown.keys() == stages.keys()
    for name, stage in stages.items():
        for kind, specs in (("input", stage.inputs), ("output", stage.outputs)):
            rows = table(shown[name], kind)
            if rows is None and name in above:  # what the page says of the second family
                rows = [row for row in table(above[name], kind) or [] if not row[0].startswith("deepstack")]
            assert rows, f"{name} has no table of {kind}s"
            assert [row[:2] for row in rows] == [(spec.name, spec.dtype) for spec in specs], (
                f"{name}: {kind}s"
            )
            for row, spec in zip(rows, specs, strict=True):
                assert fits(row[2], spec.shape), f"{name}.{spec.name}: {row[2]} is {spec.shape}"
        states = {row[0]: row for row in table(shown[name], "state") or []}
        if name in ("thinker", "talker", "mtp"):
            assert states.keys() == {re.sub(r"\d+", "N", state.name) for state in stage.states}, (
                f"{name}: states"
            )
        for state in stage.states if states else ():
            _, kind, dtype, shape = states[re.sub(r"\d+", "N", state.name)]
            assert (kind, dtype) == (state.kind, state.dtype) and fits(shape, state.shape), (
                f"{name}.{state.name}"
            )


@pytest.mark.parametrize("kind", [ReplyOptions, TextDelta, AudioDelta, Done, Reply, Timings, HistoryMessage])
def test_the_python_page_names_every_option_and_field(kind: type) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in page] == []


def test_code_cites_only_documents_that_readers_have() -> None:
    cited = re.compile(r"model-spec|service-spec|toolchain\.md|design\.md|user-asks|shared/")
    files = [
        path
        for room in ("runtime", "plugins", "graphs", "export", "scripts", "docs")
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".md", ".sh")
    ]
    found = [
        path.relative_to(ROOT).as_posix() for path in files if cited.search(path.read_text(encoding="utf-8"))
    ]
    assert not found
