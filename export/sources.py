"""Which source files of Antiphon decide a graph or an engine, and their hash:
what is edited elsewhere rebuilds nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
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
"""Taken when the code is loaded: a file that is edited during a build does not
change what that build runs.
"""


def imported_sources(modules: Iterable[str], stop: Iterable[str] = ()) -> tuple[Path, ...]:
    """The files of `modules`, and of all that they import from Antiphon, at the top or inside functions.

    `modules`, `stop`: dotted names; a package stands for all its files. Nothing of `stop` is entered, but
    for `modules` themselves.
    """
    return _walk(tuple(modules), tuple(stop))


def sources_digest(files: Iterable[Path]) -> str:
    """SHA-256 (hex) of the names and contents of `files`."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(ROOT).as_posix()} {_DIGESTS[file]}\n".encode())
    return digest.hexdigest()


@cache
def _walk(modules: tuple[str, ...], stop: tuple[str, ...]) -> tuple[Path, ...]:
    asked = {file for name in modules for file in _files(name)}
    kept = {file for name in stop for file in _files(name)} - asked
    found: dict[Path, None] = {}
    waiting = list(asked)
    while waiting:
        file = waiting.pop()
        if file in found or file in kept or file not in _DIGESTS:
            continue
        found[file] = None
        waiting += [other for name in _imports(file) for other in _module_file(name)]
    return tuple(sorted(found))


def _files(name: str) -> tuple[Path, ...]:
    """The file of a module, or all files of a package."""
    place = ROOT.joinpath(*name.split(".")[1:])
    return tuple(sorted(place.rglob("*.py"))) if place.is_dir() else (place.with_suffix(".py"),)


def _module_file(name: str) -> tuple[Path, ...]:
    """The file that an import of `name` runs: of a package its __init__.py alone."""
    place = ROOT.joinpath(*name.split(".")[1:])
    return (place / "__init__.py",) if place.is_dir() else (place.with_suffix(".py"),)


@cache
def _imports(file: Path) -> tuple[str, ...]:
    """Dotted names of what `file` imports from Antiphon;
    names that are no modules lead to no file and are harmless.
    """
    package = [PACKAGE, *file.relative_to(ROOT).parent.parts]
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *([node.module] if node.module else [])]
            if module and module[0].split(".")[0] == PACKAGE:
                names += [".".join(module), *(".".join([*module, alias.name]) for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE]
    return tuple(names)
