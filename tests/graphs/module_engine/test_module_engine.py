"""The engine kind `module`: the runtime's own pipeline on PyTorch modules gives what it gives on a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.families.registry import stages
from antiphon.runtime.bundle.errors import Closed, InvalidInput, UnsupportedTarget
from antiphon.runtime.bundle.specs import StageEntry
from antiphon.runtime.engines.base import Engine
from antiphon.runtime.engines.registry import engine_kinds, find_engine
from antiphon.runtime.omni import Omni, load

pytest.importorskip("torch")

from antiphon.graphs.module_engine.engine import ModuleEngine, module_engines  # noqa: E402
from antiphon.graphs.module_engine.loop import run_loop  # noqa: E402

FAMILIES = ("tiny", "hybrid")
TONE = (0.2 * np.sin(np.arange(8000) * 0.3)).astype(np.float32)
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is an antiphon?"}]
HEARD: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"type": "input_audio", "input_audio": {"data": TONE, "sample_rate": 16000}},
            {"type": "text", "text": "And this?"},
        ],
    }
]


@pytest.fixture(scope="module", params=FAMILIES)
def built(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A checkpoint and its bundle."""
    return request.getfixturevalue(f"{request.param}_checkpoint"), request.getfixturevalue(
        f"{request.param}_bundle"
    )


@pytest.fixture(scope="module")
def engines(built: tuple[Path, Path]) -> dict[str, Engine]:
    checkpoint = Checkpoint(built[0])
    return module_engines(stages(checkpoint.config), checkpoint)


@pytest.fixture(scope="module")
def pair(built: tuple[Path, Path], engines: dict[str, Engine]) -> Iterator[tuple[Omni, Omni]]:
    """The bundle as it is loaded, and the same with module engines."""
    with (
        load(built[1], threads=1) as omni,
        Omni(omni.manifest, engines, omni.front_end, voice_table=omni.model.voice_table) as modules,
    ):
        yield omni, modules


@pytest.mark.parametrize("messages", [QUESTION, HEARD], ids=["text", "audio"])
def test_a_greedy_answer_of_modules_has_the_ids_and_codes_of_the_bundle(
    pair: tuple[Omni, Omni], messages: list[dict[str, Any]]
) -> None:
    expected, found = (
        omni.generate(messages, greedy=True, max_text_tokens=12, max_frames=12) for omni in pair
    )
    assert len(expected.codes) >= 8
    assert found.token_ids == expected.token_ids and np.array_equal(found.codes, expected.codes)
    np.testing.assert_allclose(found.audio, expected.audio, atol=1e-4)


def test_a_conversation_of_modules_goes_on_as_that_of_the_bundle(pair: tuple[Omni, Omni]) -> None:
    texts = []
    for omni in pair:
        conversation = omni.conversation()
        for turn in ("One.", "Two."):
            conversation.append(text=turn)
            for event in conversation.reply(greedy=True, max_text_tokens=6, max_frames=4):
                texts.append((getattr(event, "token_ids", None), getattr(event, "text", None)))
            conversation.truncate(2000)
    assert len(texts) % 2 == 0 and texts[-1][0] is not None
    assert [text for text in texts[: len(texts) // 2] if text[0]] == [
        text for text in texts[len(texts) // 2 :] if text[0]
    ]


def test_several_rows_of_a_loop_are_those_of_one_row_each(engines: dict[str, Engine]) -> None:
    engine = engines["predictor"]
    noise = np.random.default_rng(0)
    shapes = {
        spec.name: [axis if isinstance(axis, int) else 3 for axis in spec.shape]
        for spec in engine.entry.inputs
    }
    feeds = {
        "hidden": noise.standard_normal(shapes["hidden"]).astype(np.float32),
        "code0": noise.integers(0, 16, 3),
        "noise": noise.random(shapes["noise"], np.float32),
        "temperature": np.array([0, 0.8, 1], np.float32),
        "top_k": np.full(3, 8),
        "top_p": np.full(3, 0.9, np.float32),
    }
    together = engine.run(feeds)
    for row in range(3):
        alone = engine.run({name: values[row : row + 1] for name, values in feeds.items()})
        assert all(np.array_equal(together[name][row : row + 1], alone[name]) for name in alone)
    assert isinstance(engine, ModuleEngine)
    forced = run_loop(engine.runner, feeds, together["codes"])
    assert np.array_equal(forced["codes"], together["codes"])
    np.testing.assert_allclose(
        forced["logits"], together["logits"], rtol=0, atol=1e-5 * np.abs(together["logits"]).max()
    )
    other = (together["codes"] + 1) % 8
    assert np.array_equal(run_loop(engine.runner, feeds, other)["codes"], other)
    assert not np.allclose(run_loop(engine.runner, feeds, other)["frame_row"], together["frame_row"])


def test_the_outputs_of_layers_can_be_recorded_while_the_engine_runs(
    engines: dict[str, Engine], pair: tuple[Omni, Omni]
) -> None:
    engine = engines["thinker"]
    assert isinstance(engine, ModuleEngine)
    with engine.runner.recorded(["layers.0", "norm"]) as calls:
        pair[1].generate(QUESTION, greedy=True, max_text_tokens=3, modalities=("text",))
    assert len(calls) == 3 and all(set(call) == {"layers.0", "norm"} for call in calls)


def test_an_engine_that_was_closed_runs_no_more(built: tuple[Path, Path]) -> None:
    checkpoint = Checkpoint(built[0])
    stage = next(stage for stage in stages(checkpoint.config) if stage.name == "predictor")
    engine = ModuleEngine(stage, checkpoint)
    engine.close()
    engine.close()
    with pytest.raises(Closed, match="The engine of stage predictor is closed"):
        engine.run(stage.example())


def test_an_encoder_has_one_row(engines: dict[str, Engine]) -> None:
    with pytest.raises(InvalidInput, match="Stage audio_encoder was asked for 2 rows, expected 1;"):
        engines["audio_encoder"].new_states(2)


def test_a_bundle_has_no_modules(tmp_path: Path, engines: dict[str, Engine]) -> None:
    entry: StageEntry = engines["thinker"].entry
    assert "module" in engine_kinds()
    with pytest.raises(UnsupportedTarget, match="Stage thinker was built as a module, which no bundle holds"):
        find_engine("module", "thinker")(tmp_path, entry)
