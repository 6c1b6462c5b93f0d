"""Which source files of Antiphon decide a graph or an engine, and their hash:
what is edited elsewhere rebuilds nothing.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "antiphon"
ROOMS = ("export", "graphs", "plugins", "runtime")
"""What the walk may enter: nothing in scripts or tests decides a stage."""

_DIGESTS = {
    file: hashlib.sha256(file.read_bytes()).hexdigest()
    for room in ROOMS
    for file in sorted((ROOT / room).rglob("*.py"))
}
"""Taken when the code is loaded, like the code itself."""


def imported_sources(modules: Iterable[str], stop: Iterable[str] = ()) -> tuple[Path, ...]:
    """The files of `modules`, and of all that they import from Antiphon, at the top or inside functions.

    `modules`, `stop`: dotted names; a package stands for all its files. Nothing of `stop` is entered, but
    for `modules` themselves. Modules from outside Antiphon, of a kind or a family that others add, count too.
    """
    return _walk(tuple(modules), tuple(stop))


def sources_digest(files: Iterable[Path]) -> str:
    """SHA-256 (hex) of the names and contents of `files`."""
    digest = hashlib.sha256()
    for file in sorted(files):
        name = file.relative_to(ROOT).as_posix() if file in _DIGESTS else file.name
        digest.update(f"{name} {_digest(file)}\n".encode())
    return digest.hexdigest()


def _digest(file: Path) -> str:
    """SHA-256 (hex) of a source file; of one from outside as it is when it is first asked for."""
    if file not in _DIGESTS:
        return _outside_digest(file)
    return _DIGESTS[file]


@cache
def _outside_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _walk(modules: tuple[str, ...], stop: tuple[str, ...]) -> tuple[Path, ...]:
    asked = {file for name in modules for file in _files(name)}
    kept = {file for name in stop for file in _files(name)} - asked
    found: dict[Path, None] = {}
    waiting = list(asked)
    while waiting:
        file = waiting.pop()
        if file in found or file in kept or file not in _DIGESTS and file not in asked:
            continue
        found[file] = None
        waiting += [other for name in _imports(file) for other in _module_file(name)]
    return tuple(sorted(found))


def _files(name: str) -> tuple[Path, ...]:
    """The file of a module, or all files of a package.

    A name that leads to no file is a mistake of the caller.
    """
    place = ROOT.joinpath(*name.split(".")[1:]) if name.split(".")[0] == PACKAGE else _outside(name)
    files = tuple(sorted(place.rglob("*.py"))) if place.is_dir() else (place.with_suffix(".py"),)
    assert all(file.is_file() for file in files), f"{name} names no source file"
    return files


def _outside(name: str) -> Path:
    """The file, or the folder of a package, of a module that is not of Antiphon."""
    module = sys.modules.get(name) or import_module(name)
    assert module.__file__ is not None, f"{name} has no source file"
    file = Path(module.__file__)
    return file.parent if file.name == "__init__.py" else file


def _module_file(name: str) -> tuple[Path, ...]:
    """The file that an import of `name` runs: of a package its __init__.py alone."""
    place = ROOT.joinpath(*name.split(".")[1:])
    return (place / "__init__.py",) if place.is_dir() else (place.with_suffix(".py"),)


@cache
def _imports(file: Path) -> tuple[str, ...]:
    """Dotted names of what `file` imports from Antiphon;
    names that are no modules lead to no file and are harmless.
    """
    package = [PACKAGE, *file.relative_to(ROOT).parent.parts] if file in _DIGESTS else []
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            if node.level and not package:
                continue  # beside a module from outside, whose package says what belongs to it
            module = [*base, *([node.module] if node.module else [])]
            if module and module[0].split(".")[0] == PACKAGE:
                names += [".".join(module), *(".".join([*module, alias.name]) for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE]
    return tuple(names)
