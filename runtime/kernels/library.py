"""Read a folder of compiled kernels from `antiphon plugins compile`: TARGET/OP/contract.json with KEY.cubin
and KEY.ptx beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle.errors import AntiphonError
from .contract import CONTRACT_VERSION, Image, Program, image_from_plain, program_from_plain

CONTRACT_FILE = "contract.json"


def default_library() -> Path:
    """The folder ANTIPHON_KERNELS, else `kernels` in the cache (ANTIPHON_CACHE, else `antiphon` in the user's
    cache folder).
    """
    if named := os.environ.get("ANTIPHON_KERNELS"):
        return Path(named)
    cache, caches = os.environ.get("ANTIPHON_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return (
        Path(cache) if cache else (Path(caches) if caches else Path.home() / ".cache") / "antiphon"
    ) / "kernels"


@dataclass(frozen=True)
class KernelLibrary:
    """The compiled programs of one target."""

    folder: Path
    target: str
    programs: tuple[Program, ...]
    images: dict[str, Image]
    """Compiled kernels by `contract.image_key`."""
    compiler: dict[str, str]
    """Names and versions of the compiler's packages."""
    homes: dict[str, Path]
    """The folder of each image."""

    @classmethod
    def open(cls, folder: str | Path, target: str) -> KernelLibrary:
        """Reads the contracts of `target` (sm90 ...) under `folder`. Images are read only when needed.

        Raises AntiphonError if there are no contracts, or one is damaged or has another version.
        """
        root = Path(folder)
        # skips folders that are still being written
        files = sorted((root / target).glob(f"[!.]*/{CONTRACT_FILE}"))
        if not files:
            raise AntiphonError(
                f"{root} holds no kernels for {target}; run: "
                f"antiphon plugins compile --target {target} --library {root}"
            )
        programs: list[Program] = []
        images: dict[str, Image] = {}
        homes: dict[str, Path] = {}
        compiler: dict[str, str] = {}
        for file in files:
            contract = read_contract(file)
            try:
                compiler |= contract["compiler"]
                programs += [program_from_plain(plain) for plain in contract["programs"]]
                images |= {key: image_from_plain(plain) for key, plain in contract["images"].items()}
            except (AttributeError, KeyError, TypeError, ValueError):
                raise _damaged(file) from None
            homes |= dict.fromkeys(contract["images"], file.parent)
        return cls(root, target, tuple(programs), images, compiler, homes)

    def cubin(self, key: str) -> bytes:
        """The image's machine code. Raises AntiphonError if it is missing or does not match the contract's
        hash.
        """
        return self._read(key, "cubin", self.images[key].cubin_sha256)

    def ptx(self, key: str) -> str:
        """The image's PTX text. Raises AntiphonError if it is missing or does not match the contract's
        hash.
        """
        return self._read(key, "ptx", self.images[key].ptx_sha256).decode()

    def _read(self, key: str, kind: str, sha256: str) -> bytes:
        path = self.homes[key] / f"{key}.{kind}"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise AntiphonError(
                f"{path} is missing; run antiphon plugins compile --target {self.target} again."
            ) from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise AntiphonError(
                f"{path} is not the file that its contract describes; "
                f"run antiphon plugins compile --target {self.target} again."
            )
        return content


def read_contract(file: Path) -> dict[str, Any]:
    """The parsed contract.json at `file`. Raises AntiphonError if it is damaged or has another version."""
    try:
        contract = json.loads(file.read_bytes())
        version = contract["version"]
        contract["compiler"], contract["programs"], contract["images"]
    except (ValueError, KeyError, TypeError):
        raise _damaged(file) from None
    if version != CONTRACT_VERSION:
        raise AntiphonError(
            f"{file} has contract version {version}, this Antiphon reads {CONTRACT_VERSION}; "
            "run antiphon plugins compile again."
        )
    return contract


def _damaged(file: Path) -> AntiphonError:
    return AntiphonError(f"{file} is damaged; delete it and run antiphon plugins compile again.")
