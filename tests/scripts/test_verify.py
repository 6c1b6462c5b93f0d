"""antiphon verify."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from antiphon.export.verify import verify as export_verify
from antiphon.export.verify.verify import Report, Row


def test_a_fresh_bundle_is_within_tolerance(antiphon, tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    code, output, error = antiphon("verify", tiny_bundle, tiny_checkpoint, "--json")
    assert (code, error) == (0, "")
    report = json.loads(output)
    assert report["passed"] and {row["stage"] for row in report["rows"]} == {
        path.name for path in (tiny_bundle / "stages").iterdir()
    }


def test_an_output_out_of_tolerance_exits_with_1_and_names_the_layer(
    antiphon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = (
        Row("thinker", "logits", 0.5, 0.1, 0.9, 1e-4, False, "layers.2"),
        Row("thinker", "hidden", 1e-6, 1e-7, 1.0, 1e-4, True),
    )
    monkeypatch.setattr(export_verify, "verify", lambda *arguments, **options: Report(rows))
    code, output, _ = antiphon("verify", tmp_path, tmp_path, "--layers")
    assert code == 1
    assert "OUT OF TOLERANCE" in output and "layers.2" in output and "within" in output
    assert antiphon("verify", tmp_path, tmp_path, "--json")[0] == 1


def test_a_checkpoint_that_is_none_is_named(antiphon, tiny_bundle: Path, tmp_path: Path) -> None:
    code, output, error = antiphon("verify", tiny_bundle, tmp_path)
    assert (code, output) == (2, "") and str(tmp_path) in error


def test_a_damaged_bundle_is_named_before_anything_runs(
    antiphon, tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    (copy / "stages" / "talker" / "engine.onnx").write_bytes(b"")
    code, _, error = antiphon("verify", copy, tiny_checkpoint)
    assert code == 2 and "engine.onnx" in error
