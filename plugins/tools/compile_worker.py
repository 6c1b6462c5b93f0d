"""Compile one kernel from Triton source to PTX and cubin, in a worker process of the compiler pool.

Needs no GPU.

Triton makes the PTX. Its two trailing parameters, scratch pointers of Triton's launcher, are removed after a
check that nothing reads them, so that the entry has exactly the contract's parameters. Triton's ptxas makes
the cubin and reports its resources.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.kernels.contract import ALIGNMENT, MAX_SHARED_BYTES, Image, Launch

_TRITON_TYPES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float32": "fp32",
    "float8_e4m3fn": "u8",
    "int64": "i64",
    "int32": "i32",
    "int8": "i8",
    "uint8": "u8",
    "bool": "i1",
}


@dataclass(frozen=True)
class Job:
    """One image to compile."""

    key: str
    """`contract.image_key` of the launch."""
    target: str
    parameters: tuple[str, ...]
    launch: Launch


@dataclass(frozen=True)
class Compiled:
    key: str
    image: Image
    cubin: bytes
    ptx: str


def prepare() -> None:
    """Set the environment before a worker imports Triton: compile kernels, whatever the parent process does
    with them."""
    os.environ["TRITON_INTERPRET"] = "0"


def compile_kernel(job: Job) -> Compiled:
    """Compile `job`.

    Raises ValueError with the kernel's name if contract and function differ or the target cannot hold it.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from .programs import kernel_function

    launch, capability = job.launch, int(job.target.removeprefix("sm"))
    function = kernel_function(launch.kernel)
    _check_names(launch, function)
    signature = dict.fromkeys(function.arg_names, "constexpr")
    attributes = {}
    scalars = range(len(launch.inputs), len(launch.inputs) + len(launch.scalars))
    for place, (name, kind) in enumerate(zip(function.arg_names, job.parameters, strict=False)):
        signature[name] = f"*{_TRITON_TYPES[kind[1:]]}" if kind.startswith("*") else _TRITON_TYPES[kind]
        if place not in scalars or launch.scalars[place - scalars.start].multiple % ALIGNMENT == 0:
            attributes[(place,)] = [["tt.divisibility", ALIGNMENT]]
    constants = {(function.arg_names.index(name),): value for name, value in launch.constants.items()}
    with tempfile.TemporaryDirectory() as folder:
        with triton.knobs.cache.scope(), triton.knobs.runtime.scope(), triton.knobs.compilation.scope():
            triton.knobs.cache.dir = folder
            triton.knobs.runtime.add_stages_inspection_hook = _leave_cubin_to_us
            triton.knobs.compilation.disable_line_info = True  # line info would contain this machine's paths
            made = triton.compile(
                ASTSource(function, signature, constants, attributes),
                target=GPUTarget("cuda", capability, 32),
                options={"num_warps": launch.warps, "num_stages": launch.stages},
            )
        ptx = _without_scratch_parameters(made.asm["ptx"], len(job.parameters), launch.kernel)
        cubin, report = _assemble(ptx, job.target, Path(folder))
    if made.metadata.global_scratch_size or made.metadata.num_ctas != 1:
        raise ValueError(
            f"{launch.kernel} wants global scratch or clusters, which the launch contract does not have."
        )
    if made.metadata.shared > MAX_SHARED_BYTES[job.target]:
        raise ValueError(
            f"{launch.kernel} wants {made.metadata.shared} bytes of shared memory; "
            f"{job.target} has {MAX_SHARED_BYTES[job.target]}."
        )
    # More warps than requested where Triton specialises them.
    warps = _number(r"\.reqntid (\d+)", ptx) // 32
    image = Image(
        entry=made.metadata.name,
        target=job.target,
        parameters=job.parameters,
        warps=warps,
        shared_bytes=made.metadata.shared,
        registers=report["registers"],
        spill_bytes=report["spills"],
        cubin_sha256=hashlib.sha256(cubin).hexdigest(),
        ptx_sha256=hashlib.sha256(ptx.encode()).hexdigest(),
    )
    return Compiled(job.key, image, cubin, ptx)


def compiler_versions() -> dict[str, str]:
    """Triton's version and those of its assemblers, by name."""
    import triton
    from triton.backends.nvidia.compiler import get_ptxas

    return {"triton": triton.__version__} | {
        f"ptxas {target}": get_ptxas(int(target[2:])).version for target in ("sm90", "sm100")
    }


def _check_names(launch: Launch, function: Any) -> None:
    count = len(launch.inputs) + len(launch.scalars) + len(launch.outputs)
    rest = set(function.arg_names[count:])
    if len(function.arg_names) < count or rest != set(launch.constants):
        raise ValueError(
            f"{launch.kernel} takes {', '.join(function.arg_names)}: "
            f"{count} arguments and {', '.join(sorted(launch.constants))} do not fit it."
        )
    for place, scalar in enumerate(launch.scalars, len(launch.inputs)):
        if function.arg_names[place] != scalar.name:
            raise ValueError(
                f"{launch.kernel} has {function.arg_names[place]} where its contract has the "
                f"scalar {scalar.name}."
            )


def _leave_cubin_to_us(
    backend: Any, stages: dict[str, Any], options: Any, language: Any, capability: int
) -> None:
    stages["cubin"] = lambda ptx, metadata: b""


def _without_scratch_parameters(ptx: str, count: int, kernel: str) -> str:
    header = re.search(r"(\.visible \.entry \w+\()(.*?)(\n\))", ptx, re.S)
    if header is None:
        raise ValueError(f"The PTX of {kernel} has no entry.")
    found = header[2].strip().split(",\n")
    names = [parameter.split()[-1] for parameter in found]
    for name in names[count:]:
        if re.search(rf"\b{name}\b", ptx[header.end() :]):
            raise ValueError(f"{kernel} reads {name}, which the launch contract does not have.")
    return (
        ptx[: header.start(2)]
        + "\n"
        + ",\n".join(f"\t{parameter.strip()}" for parameter in found[:count])
        + ptx[header.end(2) :]
    )


def _assemble(ptx: str, target: str, folder: Path) -> tuple[bytes, dict[str, int]]:
    from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability

    capability = int(target[2:])
    source, result = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(ptx)
    command = [
        get_ptxas(capability).path,
        "-v",
        f"--gpu-name={sm_arch_from_capability(capability)}",
        str(source),
        "-o",
        str(result),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise ValueError(f"ptxas refused the PTX: {run.stderr.strip()}")
    spilled = [int(count) for count in re.findall(r"(\d+) bytes spill (?:stores|loads)", run.stderr)]
    return result.read_bytes(), {
        "registers": _number(r"Used (\d+) registers", run.stderr),
        "spills": sum(spilled),
    }


def _number(pattern: str, text: str) -> int:
    """The first number that `pattern` finds in the output of a compiler, which always names it."""
    found = re.search(pattern, text)
    assert found is not None
    return int(found[1])
