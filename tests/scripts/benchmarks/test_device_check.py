"""The scripts for a borrowed GPU, on a machine without one:
what they ask, in which order, and what they tell.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.benchmarks import device_check, device_tensorrt_rtx

ROW = {
    "op": "MoE",
    "program": "bf16",
    "case": "empty",
    "error": 0.5,
    "tolerance": 0.1,
    "passed": False,
    "message": "beyond its tolerance",
}
SPREAD = {"median": 2e-5, "low": 1e-5, "high": 3e-5, "graph": True}
TIMING = {
    "benchmark": "decode",
    "ours": SPREAD,
    "eager": SPREAD,
    "compiled": None,
    "reference": None,
    "bytes_bound": 1e-5,
    "operations_bound": 1e-6,
    "fraction": 0.5,
    "notes": ["compiled: no time"],
}
CHECKED = {
    "rows": [ROW, {**ROW, "passed": True}],
    "timings": [TIMING],
    "ceilings": {"bandwidth": 3e12, "operations": 8e14},
    "passed": False,
}


def run(
    monkeypatch: pytest.MonkeyPatch, output: Path, *words: str, code: int = 0
) -> tuple[int, list[list[str]], dict[str, Any]]:
    """Exit code, commands and document of a run whose steps all end with `code` and the result CHECKED."""
    commands: list[list[str]] = []

    def run_step(command: list[str], seconds: float) -> dict[str, Any]:
        commands.append(command)
        return {
            "code": code,
            "seconds": 1.0,
            "result": {"run-sm80": {"code": -6, "words": "aborted"}} if command[0] == "-m" else CHECKED,
        }

    monkeypatch.setattr(device_check, "run_step", run_step)
    monkeypatch.setattr(device_check, "open_device", lambda: None)
    monkeypatch.setattr(device_check, "target_for", lambda device: "sm90")
    monkeypatch.setattr(sys, "argv", ["device_check", "--output", str(output), *words])
    with pytest.raises(SystemExit) as ended:
        device_check.main()
    return int(ended.value.code or 0), commands, json.loads(output.read_text())


def test_it_compiles_then_checks_all_then_times(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, commands, record = run(
        monkeypatch, tmp_path / "device.json", "--op", "MoE", "--op", "AriaStep", "--tensorrt-rtx", "rtx"
    )
    assert code == 0 and record["target"] == "sm90"
    assert list(record["steps"]) == [
        "compile",
        "check MoE",
        "check AriaStep",
        "tensorrt-rtx",
        "time MoE",
        "time AriaStep",
    ]
    assert commands[0][:4] == ["plugins", "compile", "--target", "sm90"] and commands[0][-4:] == [
        "--op",
        "MoE",
        "--op",
        "AriaStep",
    ]
    assert "--no-timing" in commands[1] and "--no-timing" not in commands[-1]
    said = capsys.readouterr().out
    assert (
        "check MoE: 1 of 2 cases passed" in said
        and "bf16, empty: error 0.5 of 0.1 beyond its tolerance" in said
    )
    assert (
        "decode: ours 20.0, eager 20.0 us; bytes 10.0, operations 1.0; 50% of bound (compiled: no time)"
        in said
    )
    assert (
        "copy 3.00 TB/s, bfloat16 800 T/s" in said
        and "tensorrt-rtx run-sm80: {'code': -6, 'words': 'aborted'}" in said
    )


def test_kernels_that_came_along_are_not_compiled_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, commands, _ = run(monkeypatch, tmp_path / "device.json", "--library", "kernels", "--op", "MoE")
    assert [command[1] for command in commands] == ["check", "check"] and commands[0][3] == "kernels"


def test_failed_checks_are_exit_code_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, tmp_path / "device.json", "--op", "MoE", code=1)[0] == 1


def test_steps_without_time_left_are_said_to_be_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, commands, record = run(monkeypatch, tmp_path / "device.json", "--op", "MoE", "--seconds", "1")
    assert code == 1 and commands == [] and record["steps"]["check MoE"]["words"] == "no time left"


def test_no_gpu_is_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise AntiphonError("No GPU.")

    monkeypatch.setattr(device_check, "open_device", refuse)
    monkeypatch.setattr(sys, "argv", ["device_check", "--output", str(tmp_path / "device.json")])
    with pytest.raises(SystemExit) as ended:
        device_check.main()
    assert ended.value.code == 2 and capsys.readouterr().err == "No GPU.\n"


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        ("print('{\"a\": 1}')", 0, {"result": {"a": 1}}),
        ("print('x'); import sys; sys.exit(3)", 3, {"words": ""}),
        ("import time; time.sleep(9)", None, {}),
    ],
)
def test_a_step_is_its_exit_code_and_its_json(
    words: str, code: int | None, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "step.py").write_text(words)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = device_check.run_step(["-m", "step"], 2)
    assert result["code"] == code and found.items() <= result.items()


def test_a_package_for_kernels_alone_is_enough_for_the_command_line(tmp_path: Path) -> None:
    missing = (
        "soundfile",
        "soxr",
        "av",
        "PIL",
        "onnxruntime",
        "onnx",
        "onnx_ir",
        "onnxscript",
        "tokenizers",
        "jinja2",
        "safetensors",
        "yaml",
        "transformers",
    )
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r})); "
        "sys.argv = ['antiphon', 'plugins', 'list', '--json']\n"
    )
    code += (
        "import antiphon.plugins.tools.check, antiphon.scripts.benchmarks.device_check, "
        "antiphon.scripts.benchmarks.device_tensorrt_rtx\n"
    )
    code += "from antiphon.scripts.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["ops"]


def test_a_step_that_is_ended_leaves_no_process_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "import subprocess, sys, time\n"
    code += (
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('child', 'w').write(str(child.pid))\ntime.sleep(60)"
    )
    (tmp_path / "step.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    # communicate would wait for the child, which holds the pipes
    assert device_check.run_step(["-m", "step"], 3)["code"] is None
    status, until = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat"), time.monotonic() + 5
    while (running := status.exists() and status.read_text().split()[2] != "Z") and time.monotonic() < until:
        time.sleep(0.01)
    assert not running


def test_each_op_has_its_share_of_the_time_for_compiling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = run(
        monkeypatch,
        tmp_path / "device.json",
        "--op",
        "MoE",
        "--op",
        "AriaStep",
        "--seconds",
        "400",
        "--library",
        "kernels",
    )[1]
    seconds = [
        int(command[command.index("--compile-seconds") + 1])
        for command in commands
        if "--compile-seconds" in command
    ]
    assert 90 <= seconds[0] <= 100 and seconds[1] == 150


def test_each_question_to_tensorrt_rtx_is_a_process_that_may_die(tmp_path: Path) -> None:
    (tmp_path / "tensorrt_rtx_bindings.py").write_text("import os; os.abort()")
    assert device_tensorrt_rtx.ask("build-sm80", tmp_path)["code"] == -6


def test_packed_libraries_are_unpacked_once(tmp_path: Path) -> None:
    packed = tmp_path / "libs" / "libone.so.1.xz"
    packed.parent.mkdir()
    packed.write_bytes(lzma.compress(b"code"))
    device_tensorrt_rtx.unpack(tmp_path)
    assert (tmp_path / "libs" / "libone.so.1").read_bytes() == b"code"
    packed.write_bytes(lzma.compress(b"other"))
    device_tensorrt_rtx.unpack(tmp_path)
    assert (tmp_path / "libs" / "libone.so.1").read_bytes() == b"code"
