"""Nothing leaves the user's machine unasked, and no library leaves a file behind in a home folder."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ONE_PLACE = "runtime/engines/onnxruntime/library.py"
SUPPRESSED_BY = (
    "ORT_DISABLE_TELEMETRY",
    "ORT_RUNNING_UNIT_TESTS",
    "CI",
    "TF_BUILD",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "CIRCLECI",
    "TRAVIS",
    "JENKINS_URL",
)
"""Variables that keep ONNX Runtime silent by themselves, so that a test would prove nothing with them."""
ASK = (
    "with antiphon.load({bundle!r}) as omni:\n    omni.generate([{{'role': 'user', 'content': "
    "'hi'}}], max_text_tokens=2, max_frames=2)"
)


def files_left_by(code: str, home: Path, **variables: str) -> list[str]:
    """The files that a new interpreter leaves in `home`, the empty folder of everything that belongs
    to a user, after `code`.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in SUPPRESSED_BY and not name.startswith("XDG_")
    }
    folders = {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "LOCALAPPDATA": str(home / "local"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    folders |= {
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_STATE_HOME": str(home / "state"),
    }
    home.mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=home, env=kept | folders | variables, check=True)
    return [path.relative_to(home).as_posix() for path in home.rglob("*")]


def imported(file: Path) -> set[str]:
    """The top-level modules that `file` imports by an absolute name, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_one_place_imports_onnx_runtime() -> None:
    files = {
        path.relative_to(ROOT).as_posix(): path
        for path in ROOT.rglob("*.py")
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    }
    assert len(files) > 100
    assert [name for name, path in files.items() if "onnxruntime" in imported(path)] == [ONE_PLACE]


def test_importing_the_package_and_running_a_bundle_leaves_no_file_in_the_home_folder(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    assert files_left_by(f"import antiphon\n{ASK.format(bundle=str(tiny_bundle))}", tmp_path / "home") == []


def test_a_build_leaves_no_file_in_the_home_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    code = f"import antiphon\nantiphon.build({str(tiny_checkpoint)!r}, {str(tmp_path / 'bundle')!r})"
    cache = os.environ["ANTIPHON_CACHE"]  # filled by the other tests, so little is built anew
    assert files_left_by(code, tmp_path / "home", ANTIPHON_CACHE=cache) == []


@pytest.mark.parametrize("said", ["0", "1", ""])
def test_what_the_user_says_about_telemetry_stays(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, sys, types\n"
        "sys.modules['onnxruntime'] = types.SimpleNamespace(disable_telemetry_events=lambda: print('off'))\n"
    )
    code += (
        "import antiphon.runtime.engines.onnxruntime.library\n"
        "print(repr(os.environ['ORT_DISABLE_TELEMETRY']))"
    )
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", said)
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert printed == (["off"] if said == "1" else []) + [repr(said)]
