"""How bad input is tried: a place with things to spoil, ways to spoil them,
and what the command line must say about it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from antiphon.runtime.bundle.manifest import seal
from antiphon.scripts.cli import app

FIRST_SHARD = "model-00001-of-00002.safetensors"
QUESTION = [{"role": "user", "content": "Hi"}]
WHAT_TO_DO = re.compile(
    r"\b(give|use|download|build|make|correct|copy|shorten|finish|repair|encode|leave|ask|free|set"
    r"|save|check|expected|"
    r"the (bundle's )?(voices|languages) are)\b"
)


@dataclass(frozen=True)
class Place:
    """What a case may spoil, file by file: links to a checkpoint and its bundle,
    and a folder for anything else.
    """

    home: Path
    checkpoint: Path
    bundle: Path


Arguments = list[str]
Prepare = Callable[[Place], Arguments]


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # the link: the file itself is every test's
    path.write_bytes(content)


def edit(path: Path, name: str, value: Any) -> None:
    """Set the field `name` (a dotted path; a value of None removes it) of a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    *sections, last = name.split(".")
    node = content
    for section in sections:
        node = node[section]
    if value is None:
        del node[last]
    else:
        node[last] = value
    replace(path, json.dumps(content).encode())


def edit_manifest(bundle: Path, name: str, value: Any) -> None:
    """`edit` its manifest, and seal it again as if it had been built so."""
    path = bundle / "manifest.json"
    edit(path, name, value)
    content = json.loads(path.read_text(encoding="utf-8"))
    replace(path, json.dumps(content | {"sha256": seal(content)}).encode())


def cut(path: Path) -> None:
    replace(path, path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    replace(path, bytes(content))


def building(spoil: Callable[[Path], object], destination: str = "out") -> Prepare:
    """Build from a checkpoint that `spoil` has changed."""

    def prepare(place: Place) -> Arguments:
        spoil(place.checkpoint)
        return ["build", str(place.checkpoint), str(place.home / destination)]

    return prepare


def config(name: str, value: Any) -> Prepare:
    return building(lambda checkpoint: edit(checkpoint / "config.json", name, value))


def asking(*arguments: str, spoil: Callable[[Place], object] = lambda place: None) -> Prepare:
    """Run the bundle with these arguments, in which {home} stands for the folder of the case."""

    def prepare(place: Place) -> Arguments:
        spoil(place)
        return ["run", str(place.bundle), *(argument.format(home=place.home) for argument in arguments)]

    return prepare


def manifest(name: str, value: Any) -> Callable[[Place], object]:
    return lambda place: edit_manifest(place.bundle, name, value)


def file(name: str, content: bytes) -> Callable[[Place], object]:
    return lambda place: (place.home / name).write_bytes(content)


def make_place(parent: Path, checkpoint: Path, bundle: Path) -> Place:
    """A place in the folder `parent`."""
    home = parent / "home"
    (home / "things").mkdir(parents=True)
    (home / "things" / "notes.txt").write_text("mine")
    (home / "file").write_text("mine")
    for folder, name in ((checkpoint, "checkpoint"), (bundle, "bundle")):
        shutil.copytree(folder, parent / name, copy_function=os.link)
    return Place(home, parent / "checkpoint", parent / "bundle")


def is_clear(sentence: str) -> bool:
    """Whether `sentence` is one, and says what to do."""
    return (
        len(sentence) < 400
        and "\n" not in sentence
        and "Traceback" not in sentence
        and sentence.endswith(".")
        and bool(WHAT_TO_DO.search(sentence))
    )


def check_case(place: Place, prepare: Prepare, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run what `prepare` makes of `place`: exit code 2, one clear sentence that matches `named`,
    and nothing left behind.
    """
    arguments = prepare(place)
    monkeypatch.chdir(place.home)  # answer.wav would go here
    before = sorted(place.home.parent.rglob("*"))
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("antiphon: ") and result.stderr.endswith("\n")
    sentence = result.stderr.removeprefix("antiphon: ")[:-1]
    assert is_clear(sentence), sentence
    assert re.search(named, sentence), sentence
    assert sorted(place.home.parent.rglob("*")) == before, "nothing half-written"
