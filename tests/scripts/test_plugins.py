"""antiphon plugins."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from antiphon.plugins.registry import FOLDERS
from antiphon.runtime.kernels.contract import GPU_TARGETS

pytest.importorskip("triton", reason="the extra kernels (triton) is not installed")
OP = "CausalConvState"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from antiphon.plugins.tools.compile import compile_library

    folder = tmp_path_factory.mktemp("kernels")
    compile_library(folder, ["sm89"], [OP])
    return folder


def test_list_names_every_op_and_where_the_library_has_nothing(antiphon, tmp_path: Path) -> None:
    code, output, error = antiphon("plugins", "list", "--library", tmp_path / "none")
    assert (code, error) == (0, "")
    for op in FOLDERS:
        assert re.search(rf"│ {op} .*│ not compiled", output)
    assert not (tmp_path / "none").exists()


def test_list_says_dtypes_targets_and_status_of_what_is_compiled(antiphon, library: Path) -> None:
    listed = json.loads(antiphon("plugins", "list", "--library", library, "--op", OP, "--json")[1])["ops"]
    assert [(one["op"], one["compiled"], one["stale"]) for one in listed] == [(OP, ["sm89"], [])]
    assert set(listed[0]["dtypes"]) == {"bfloat16", "float16", "float32"} and listed[0]["bytes"] > 0
    assert re.search(
        rf"│ {OP} .*│ sm89 +│ .*│ ready", antiphon("plugins", "list", "--library", library, "--op", OP)[1]
    )


def test_list_of_kernels_says_what_each_needs(antiphon, library: Path) -> None:
    kernels = json.loads(
        antiphon("plugins", "list", "--library", library, "--op", OP, "--kernels", "--json")[1]
    )["kernels"]
    assert kernels and all(
        one["kernel"] == "causal_conv" and 0 < one["registers"] < 256 and one["spilled"] == 0
        for one in kernels
    )
    assert "causal_conv" in antiphon("plugins", "list", "--library", library, "--op", OP, "--kernels")[1]


def test_list_of_kernels_says_how_to_make_them_where_there_are_none(antiphon, tmp_path: Path) -> None:
    code, output, error = antiphon("plugins", "list", "--library", tmp_path, "--op", OP, "--kernels")
    assert (code, output) == (
        2,
        "",
    ) and f"{tmp_path} holds no kernels of {OP}; run: antiphon plugins compile" in error


def test_compile_keeps_what_is_unchanged(antiphon, library: Path) -> None:
    code, output, error = antiphon("plugins", "compile", "--library", library, "--op", OP, "--target", "sm89")
    assert (code, error) == (0, "") and re.search(rf"│ sm89 +│ {OP} .*│ cached", output)


def test_the_library_is_the_one_that_the_environment_names(
    antiphon, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_KERNELS", str(library))
    assert json.loads(antiphon("plugins", "list", "--op", OP, "--json")[1])["library"] == str(library)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("compile", "--target", "sm75"),
            f"There is no target 'sm75'; kernels are compiled for {', '.join(GPU_TARGETS)}.",
        ),
        (("compile", "--target", ","), "--target names no GPU architecture"),
        (("compile", "--op", "Softmax"), "There is no op 'Softmax'; the ops are MoE, "),
        (("list", "--op", "Softmax"), "There is no op 'Softmax'; the ops are MoE, "),
    ],
)
def test_unknown_names_are_one_sentence_and_exit_code_2(
    antiphon, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    code, output, error = antiphon("plugins", *arguments, "--library", tmp_path)
    assert (code, output) == (2, "") and sentence in error and not list(tmp_path.iterdir())


def test_a_library_that_cannot_be_written_is_one_sentence(antiphon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, error = antiphon(
        "plugins", "compile", "--target", "sm80", "--op", OP, "--library", tmp_path / "file"
    )
    assert code == 2 and error.startswith("antiphon: ") and len(error.splitlines()) == 1


def test_a_damaged_contract_is_one_sentence(antiphon, tmp_path: Path) -> None:
    (tmp_path / "sm80" / OP).mkdir(parents=True)
    (tmp_path / "sm80" / OP / "contract.json").write_text("{")
    code, _, error = antiphon("plugins", "list", "--op", OP, "--library", tmp_path)
    assert code == 2 and "is damaged" in error


def test_check_without_a_gpu_says_what_is_missing(antiphon, library: Path, tmp_path: Path) -> None:
    code, output, error = antiphon(
        "plugins", "check", "--library", library, "--output", tmp_path / "result.json"
    )
    if code == 0:
        pytest.skip("a GPU is here")
    assert (code, output) == (2, "") and re.search("driver|GPU|cuda", error) and len(error.splitlines()) == 1
    assert not (tmp_path / "result.json").exists()


def test_short_times_are_microseconds_and_both_bounds_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    from antiphon.plugins.tools.check import CheckResult
    from antiphon.plugins.tools.timing import Ceilings, Spread, Timing
    from antiphon.scripts.plugins import _print_check

    ours, eager = Spread(4.2e-6, 4e-6, 5e-6, True), Spread(2.5e-3, 2e-3, 3e-3, False)
    timing = Timing(
        "AriaStep",
        "16 streams",
        "bf16",
        ours,
        eager,
        None,
        None,
        1.5e-6,
        0.3e-6,
        8,
        1,
        0.0,
        "under 10",
        ("compiled: no time",),
    )
    _print_check(CheckResult("a GPU", "9.0", "sm90", {}, (), (timing,), Ceilings(3e12, 8e14, 5)))
    said = capsys.readouterr().out
    assert all(
        words in said
        for words in (
            "4.2 us",
            "1.5 us",
            "0.3 us",
            "36%",
            "2.5 ms",
            "AriaStep, 16 streams: compiled: no time; eager: launch by launch",
        )
    )


def test_a_result_that_cannot_be_written_is_said_first(antiphon, library: Path, tmp_path: Path) -> None:
    code, _, error = antiphon("plugins", "check", "--library", library, "--output", tmp_path)
    assert code == 2 and error.endswith("cannot be written: it is a folder.\n")
