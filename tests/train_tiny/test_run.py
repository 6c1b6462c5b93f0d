"""A training run: it goes on where it stopped as if it had never stopped,
and survives a step without finite gradients.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from antiphon.graphs.layers.decoder import Projection
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.train_tiny import run as module
from antiphon.scripts.train_tiny.command import command
from antiphon.scripts.train_tiny.run import REPORT_EVERY, Run, initialise, trained

STEPS = 2 * REPORT_EVERY


class Interrupted(Exception):
    """Stands for Ctrl-C."""


def small_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def train(
    folder: Path, stop_at: int | None = None, broken: tuple[int, ...] = (), steps: int = STEPS
) -> nn.Module:
    """Learn the sum of three numbers that depend on the step alone;
    `broken` steps have a loss that is no number.
    """
    network = small_module()
    run = Run(folder, {"network": network}, rate=1e-2, steps=steps, warmup=10)
    for step in run.steps():
        if step == stop_at:
            raise Interrupted
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        loss = (network(x) - x.sum(1, keepdim=True)).square().mean()
        run.update(loss * math.nan if step in broken else loss)
        run.log(loss=loss.item())
    return network


def curves(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "curves.jsonl").read_text(encoding="utf-8").splitlines()]


def without_time(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_run_learns_and_reports(tmp_path: Path) -> None:
    train(tmp_path / "run")
    first, last = curves(tmp_path / "run")
    assert (first["step"], last["step"]) == (REPORT_EVERY, STEPS)
    assert last["loss"] < 0.5 * first["loss"] and last["rate"] < first["rate"] and last["skipped"] == 0


@pytest.mark.parametrize("stop_at", [REPORT_EVERY, REPORT_EVERY + 20])
def test_an_interrupted_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path, stop_at: int) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", stop_at)
    resumed = train(tmp_path / "parts")
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    # Values logged since the last report are lost with the process; with a stop at a report
    # the curves are the same.
    expected, found = without_time(curves(tmp_path / "whole")), without_time(curves(tmp_path / "parts"))
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    if stop_at == REPORT_EVERY:
        assert found == expected


def test_a_finished_run_does_no_more_steps(tmp_path: Path) -> None:
    train(tmp_path / "run")
    before = (tmp_path / "run" / "curves.jsonl").read_bytes()
    train(tmp_path / "run")
    assert (tmp_path / "run" / "curves.jsonl").read_bytes() == before


def test_the_schedule_ends_with_the_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 6))  # every step takes six seconds
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(clock)))
    network = small_module()
    run = Run(tmp_path / "run", {"network": network}, rate=1e-2, steps=1000, minutes=1.0)
    assert len(list(run.steps())) == 10 and run.progress == 1.0


def test_a_step_without_finite_gradients_changes_nothing_and_is_counted(tmp_path: Path) -> None:
    broken = (3, 4, 60)
    network = train(tmp_path / "run", broken=broken)
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    first, last = curves(tmp_path / "run")
    assert (round(first["skipped"] * REPORT_EVERY), round(last["skipped"] * REPORT_EVERY)) == (2, 1)
    before = small_module()
    only_broken = train(tmp_path / "broken", broken=(0, 1), steps=2)
    for mine, theirs in zip(only_broken.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_the_modules_of_a_run_are_loaded_by_name(tmp_path: Path) -> None:
    network = train(tmp_path / "run")
    other = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    trained(tmp_path / "run", {"network": other})
    for mine, theirs in zip(other.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_start_values_are_finite_and_keep_the_size_of_what_passes() -> None:
    torch.manual_seed(0)
    projection = Projection(400, 300, bias=True)
    initialise([projection])
    y = projection(torch.randn(200, 400))
    assert y.std().item() == pytest.approx(1.0, abs=0.05)
    assert projection.bias is not None and not projection.bias.any()


def test_a_command_ends_with_one_sentence_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise AntiphonError("There is no corpus; make one.")

    with pytest.raises(SystemExit) as ended:
        command(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "There is no corpus; make one.\n"


def test_an_interrupted_command_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        command(main)
    assert ended.value.code == 130
    assert "goes on" in capsys.readouterr().err
