"""A GPU that is none: device memory in host arrays, and launches by the Triton interpreter, by image key,
address and type, as a driver gets them.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from antiphon.plugins.tools import interpreter
from antiphon.runtime.kernels.contract import (
    ALIGNMENT,
    CONTRACT_VERSION,
    Image,
    Launch,
    Program,
    image_key,
    parameters,
    to_plain,
)
from antiphon.runtime.kernels.cuda_device import launch_arguments

GARBAGE = 0x7B


class HostDevice:
    """Meets `driver.Device`. `launched` and `allocated` tell what was asked of it, in order."""

    name = "the host"
    capability = (8, 0)

    def __init__(self, programs: Iterable[Program]) -> None:
        self.steps: dict[str, Launch] = {
            image_key(program, step): step for program in programs for step in program.launches
        }
        self.blocks: dict[int, np.ndarray] = {}
        self.allocated: list[int] = []
        self.loaded: list[str] = []
        self.launched: list[tuple[str, tuple[int, int, int], list[Any], int]] = []

    def allocate(self, size: int, stream: int) -> tuple[int, object]:
        block = np.full(size + ALIGNMENT, GARBAGE, np.uint8)
        block = block[-block.ctypes.data % ALIGNMENT :][:size]
        self.blocks[block.ctypes.data] = block
        self.allocated.append(size)
        return block.ctypes.data, block

    def write(self, pointer: int, values: np.ndarray, stream: int) -> None:
        assert values.flags.c_contiguous and values.nbytes <= self.blocks[pointer].nbytes
        ctypes.memmove(pointer, values.ctypes.data, values.nbytes)

    def read(self, pointer: int, values: np.ndarray, stream: int) -> None:
        assert values.flags.c_contiguous and values.nbytes <= self.blocks[pointer].nbytes
        ctypes.memmove(values.ctypes.data, pointer, values.nbytes)

    def versions(self) -> dict[str, str]:
        return {"driver": "none"}

    def load(self, key: str, image: Image, cubin: bytes) -> str:
        assert hashlib.sha256(cubin).hexdigest() == image.cubin_sha256
        self.loaded.append(key)
        return key

    def launch(
        self, kernel: str, image: Image, grid: tuple[int, int, int], arguments: list[int], stream: int
    ) -> None:
        typed = launch_arguments(image, arguments)
        self.launched.append((kernel, grid, typed, stream))
        interpreter._patch_interpreter()
        interpreter._launch(
            self.steps[kernel],
            grid,
            [
                self._tensor(value, kind) if kind.startswith("*") else int(value)
                for value, kind in zip(typed, image.parameters, strict=True)
            ],
        )

    def wait(self, stream: int) -> None:
        pass

    def _tensor(self, pointer: int, kind: str) -> torch.Tensor:
        """All of the block at `pointer`, as the kernel's parameter sees it."""
        dtype = interpreter._TORCH[kind[1:]]
        block = self.blocks[pointer]
        return torch.from_numpy(block[: block.nbytes // dtype.itemsize * dtype.itemsize]).view(dtype)


def write_library(folder: Path, target: str, programs: Iterable[Program]) -> Path:
    """A library as `antiphon plugins compile` lays it out, whose machine code is only a name."""
    by_op: dict[str, list[Program]] = {}
    for program in programs:
        by_op.setdefault(program.op, []).append(program)
    for op, every in by_op.items():
        home = folder / target / op
        home.mkdir(parents=True)
        images = {}
        for program in every:
            for step in program.launches:
                key = image_key(program, step)
                (home / f"{key}.cubin").write_bytes(key.encode())
                (home / f"{key}.ptx").write_text(key)
                digest = hashlib.sha256(key.encode()).hexdigest()
                images[key] = to_plain(
                    Image(
                        step.kernel, target, parameters(program, step), step.warps, 0, 32, 0, digest, digest
                    )
                )
        contract = {
            "version": CONTRACT_VERSION,
            "target": target,
            "op": op,
            "compiler": {"none": "0"},
            "source": "",
            "programs": [to_plain(one) for one in every],
        }
        (home / "contract.json").write_text(json.dumps({**contract, "images": images}))
    return folder
