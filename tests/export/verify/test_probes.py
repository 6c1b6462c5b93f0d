"""The probes of the encoders show more than the shape that was traced."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from antiphon.export.verify.probes import probes
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.families.registry import stages
from antiphon.graphs.stage import Stage


@pytest.fixture(scope="module")
def made(tiny_checkpoint: Path) -> dict[str, Stage]:
    return {stage.name: stage for stage in stages(read_config(tiny_checkpoint))}


def test_audio_probes_have_whole_cut_and_single_short_chunks(made: dict[str, Stage]) -> None:
    calls = probes(made["audio_encoder"])
    assert len({feeds["chunks"].shape for feeds in calls}) == len(calls) == 3
    full = 2 * made["audio_encoder"].size("n_window")
    mixed, short = calls[1]["chunks"], calls[2]["chunks"]
    assert mixed[0].all() and not mixed[-1, :, 37 % full :].any() and short.shape[0] == -(-8 // full)


def test_vision_probes_are_a_picture_and_a_video_of_other_sizes(made: dict[str, Stage]) -> None:
    calls = probes(made["vision_encoder"])
    assert [feeds["pixels"].shape[:2] for feeds in calls[1:]] == [(1, 24), (3, 16)]
    assert len({feeds["pixels"].shape for feeds in calls}) == 3


@pytest.mark.parametrize("stage", ["thinker", "talker"])
def test_the_last_call_of_a_decoder_uses_every_sampling_input(made: dict[str, Stage], stage: str) -> None:
    *greedy, drawn = probes(made[stage])
    assert not any(feeds["temperature"].any() for feeds in greedy)
    assert (
        all(drawn[name].all() for name in ("temperature", "top_k", "top_p", "noise"))
        and (drawn["repetition_penalty"] != 1).all()
    )
    assert drawn["penalised"].any() and drawn["suppressed"].any() and not drawn["suppressed"].all()
