"""The compiler of kernels: what a library holds, when it is kept,
and what a kernel that does not fit says.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the extra kernels (triton) is not installed")

from antiphon.plugins.tools import compile as compiler
from antiphon.plugins.tools.compile import compile_library
from antiphon.plugins.tools.programs import programs
from antiphon.plugins.tools.status import op_status
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import GPU_TARGETS, image_key, parameters
from antiphon.runtime.kernels.library import KernelLibrary

OP = "CausalConvState"
WIDTHS = {".u64": 8, ".b64": 8, ".u32": 4, ".b32": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with one op for two targets."""
    made = tmp_path_factory.mktemp("kernels")
    built = compile_library(made, ["sm80", "sm90"], [OP])
    assert [(one.target, one.op, one.cached) for one in built] == [("sm80", OP, False), ("sm90", OP, False)]
    return made


@pytest.mark.parametrize("target", ["sm80", "sm90"])
def test_every_launch_has_its_image_with_exactly_the_contract_s_parameters(folder: Path, target: str) -> None:
    library = KernelLibrary.open(folder, target)
    assert library.programs == tuple(programs(target, [OP]))
    for program in library.programs:
        for step in program.launches:
            key = image_key(program, step)
            image, ptx = library.images[key], library.ptx(key)
            assert image.parameters == parameters(program, step)
            header = re.search(rf"\.visible \.entry {image.entry}\((.*?)\n\)", ptx, re.S)
            assert header is not None
            widths = [WIDTHS[line.split()[1]] for line in header[1].strip().splitlines()]
            assert widths == [8 if kind.startswith("*") else 4 for kind in image.parameters]
            assert library.cubin(key)[:4] == b"\x7fELF"
            assert (
                image.spill_bytes == 0
                and ".local" not in ptx
                and f".target {target.replace('sm', 'sm_')}" in ptx
            )


def test_ptx_names_no_file_of_the_machine_that_made_it(folder: Path) -> None:
    for file in folder.rglob("*.ptx"):
        assert ".py" not in file.read_text()


def test_ptx_is_of_a_version_that_drivers_of_cuda_13_0_load(folder: Path) -> None:
    for file in folder.rglob("*.ptx"):
        version = re.search(r"^\.version (\d+)\.(\d+)", file.read_text(), re.M)
        assert version is not None and (int(version[1]), int(version[2])) <= (9, 0)


def test_an_unchanged_op_is_kept_and_a_damaged_one_compiled_again(folder: Path) -> None:
    assert all(one.cached for one in compile_library(folder, ["sm80", "sm90"], [OP]))
    victim = next((folder / "sm80" / OP).glob("*.cubin"))
    victim.unlink()
    assert op_status(folder, OP).stale == ("sm80",)
    built = compile_library(folder, ["sm80", "sm90"], [OP])
    assert [one.cached for one in built] == [False, True]
    assert op_status(folder, OP).stale == () and victim.exists()


def test_an_image_cut_short_is_compiled_again(folder: Path) -> None:
    victim = next((folder / "sm80" / OP).glob("*.cubin"))
    victim.write_bytes(whole := victim.read_bytes()[:100])
    assert op_status(folder, OP).stale == ("sm80",)
    assert [one.cached for one in compile_library(folder, ["sm80"], [OP])] == [False]
    assert victim.read_bytes()[:100] == whole and victim.stat().st_size > 100


def test_a_place_that_is_no_folder_is_said_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "_compile", lambda *given: pytest.fail("compiled"))
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(AntiphonError, match="is no folder that can be written"):
            compile_library(place, ["sm80"], [OP])


def test_ctrl_c_ends_it_without_a_word_of_the_processes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "antiphon",
        "plugins",
        "compile",
        "--op",
        OP,
        "--target",
        "sm80",
        "--library",
        str(tmp_path / "kernels"),
    ]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
    )
    workers = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    until = time.monotonic() + 30
    while (
        workers.exists() and len(workers.read_text().split()) < 2 and time.monotonic() < until
    ):  # the resource tracker, and the first to compile: still importing
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    output, error = run.communicate(timeout=60)
    assert (run.returncode, output, error) == (130, "", "antiphon: Interrupted.\n")
    assert not [file for file in (tmp_path / "kernels").iterdir() if file.name.startswith(".")]


def test_a_changed_program_is_out_of_date(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "programs", lambda target, ops: programs(target, ops)[:1])
    status = op_status(folder, OP)
    assert status.stale == ("sm80", "sm90") and status.state == "out of date: sm80, sm90"


def test_an_image_that_is_not_what_its_contract_hashed_is_refused(folder: Path) -> None:
    library = KernelLibrary.open(folder, "sm80")
    key = next(iter(library.images))
    changed = dataclasses.replace(
        library,
        images={key: dataclasses.replace(library.images[key], cubin_sha256=hashlib.sha256(b"").hexdigest())},
    )
    with pytest.raises(AntiphonError, match="is not the file that its contract describes"):
        changed.cubin(key)


def test_a_library_without_the_target_names_the_command_that_makes_it(folder: Path) -> None:
    with pytest.raises(AntiphonError, match="antiphon plugins compile --target sm89"):
        KernelLibrary.open(folder, "sm89")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is damaged"),
        (json.dumps({"version": 1, "compiler": {}, "programs": [{}], "images": {}}), "is damaged"),
        (json.dumps({"version": 1, "compiler": {}, "programs": [], "images": []}), "is damaged"),
        (json.dumps({"version": 99, "compiler": {}, "programs": [], "images": {}}), "contract version 99"),
    ],
)
def test_a_contract_that_cannot_be_read_is_said_in_one_sentence(
    tmp_path: Path, content: str, sentence: str
) -> None:
    (tmp_path / "sm80" / OP).mkdir(parents=True)
    (tmp_path / "sm80" / OP / "contract.json").write_text(content)
    with pytest.raises(AntiphonError, match=sentence):
        KernelLibrary.open(tmp_path, "sm80")


def test_a_kernel_that_does_not_fit_its_contract_leaves_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = programs("sm80", [OP])[0]
    wrong = dataclasses.replace(
        program, launches=(dataclasses.replace(program.launches[0], constants={"KERNEL": 4}),)
    )
    monkeypatch.setattr(compiler, "programs", lambda target, ops: [wrong])
    with pytest.raises(
        AntiphonError, match="causal_conv_state.causal_conv does not compile for sm80: .* do not fit it"
    ):
        compile_library(tmp_path / "kernels", ["sm80"], [OP])
    assert not list((tmp_path / "kernels").rglob("*"))


@pytest.mark.parametrize(
    ("target", "op", "sentence"), [("sm75", OP, "no target 'sm75'"), ("sm80", "Nothing", "no op 'Nothing'")]
)
def test_unknown_names_are_refused(tmp_path: Path, target: str, op: str, sentence: str) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        compile_library(tmp_path, [target], [op])


def test_programs_are_read_without_triton_or_torch() -> None:
    code = (
        "import sys; sys.modules['triton'] = sys.modules['torch'] = None\n"
        "from antiphon.plugins.tools.programs import programs; "
        "from antiphon.runtime.kernels.contract import GPU_TARGETS\n"
        "print(sum(len(programs(target)) for target in GPU_TARGETS))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=60
    )
    assert done.returncode == 0 and int(done.stdout) > len(GPU_TARGETS), done.stderr


def test_an_op_depends_on_its_own_kernels_and_on_those_they_are_made_of() -> None:
    moe, quantized, convolution = (
        set(compiler.kernel_sources(programs("sm80", [op]))) for op in ("MoE", "QuantizedMoE", OP)
    )
    assert moe < quantized and moe.isdisjoint(convolution) and len(convolution) == 1
