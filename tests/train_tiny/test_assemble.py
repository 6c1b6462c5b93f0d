"""One checkpoint from trained parts: every stage of it has the trained parameters,
what was not trained stays, and it builds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.checkpoints.safetensors_folder import SINGLE_NAME
from antiphon.graphs.config import OmniConfig
from antiphon.graphs.families.qwen3_5_omni.talker import Talker
from antiphon.graphs.families.registry import stages
from antiphon.graphs.module_engine.runner import ModuleRunner
from antiphon.graphs.stages.audio_encoder import AudioEncoder
from antiphon.graphs.stages.predictor import PredictorStep
from antiphon.graphs.stages.thinker import Thinker
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.train_tiny import assemble as module
from antiphon.scripts.train_tiny.assemble import VOICES_TENSOR, Runs, assemble, main
from antiphon.scripts.train_tiny.codec_training import trainable_encoder
from antiphon.scripts.train_tiny.run import initialise
from antiphon.scripts.train_tiny.vocoder_training import TrainedVocoder

# Stored as bfloat16: 8 bits, and logarithms of up to 3.
PRECISION = {"rtol": 2e-2, "atol": 1e-2}
LENGTHS = {"joe": 30, "espeak": 12}


def save(folder: Path, **modules: nn.Module) -> Path:
    """A run's state as run.Run writes it."""
    folder.mkdir()
    torch.save(
        {
            "modules": {name: module.state_dict() for name, module in modules.items()},
            "optimiser": {},
            "step": 1,
            "seconds": 1.0,
        },
        folder / "state.pt",
    )
    return folder


def randomised(made: nn.Module) -> nn.Module:
    initialise([made])
    return made


def codec_run(config: OmniConfig, folder: Path) -> Path:
    assert config.codec_encoder is not None
    encoder = trainable_encoder(config.codec_encoder)
    with torch.no_grad():
        # As bfloat16 will hold it: codes may turn on the last bit.
        for values in encoder.state_dict().values():
            values.copy_(values.bfloat16().float())
    return save(folder, encoder=encoder, judges=nn.Linear(2, 2))


def vocoder_run(config: OmniConfig, folder: Path, codec: Path) -> Path:
    assert config.code2wav is not None and config.codec_encoder is not None
    vocoder = TrainedVocoder(config.code2wav)
    vocoder.take_codebooks(codec, config.codec_encoder)
    return save(folder, vocoder=nn.Linear(2, 2), average=vocoder)


def talker_run(config: OmniConfig, folder: Path) -> Path:
    assert config.talker is not None
    talker, predictor = Talker(config.talker), PredictorStep(config.talker)
    initialise([talker, predictor])
    nn.init.zeros_(predictor.code_embedding)  # not trained: the Talker's tables are used
    return save(folder, talker=talker, predictor=predictor)


def thinker_run(config: OmniConfig, folder: Path) -> Path:
    return save(
        folder,
        thinker=randomised(Thinker(config)),
        audio_encoder=randomised(AudioEncoder(config.thinker.audio)),
        hearing=nn.Linear(2, 2),
    )


def voices_file(config: OmniConfig, file: Path) -> Path:
    generator = np.random.default_rng(0)
    np.savez(file, **{name: generator.integers(0, 256, (length, 16)) for name, length in LENGTHS.items()})  # type: ignore[arg-type]
    return file.with_suffix(".npz")


@pytest.fixture(scope="module")
def config(start_checkpoint: Path) -> OmniConfig:
    return read_config(start_checkpoint)


@pytest.fixture(scope="module")
def runs(config: OmniConfig, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All parts, with random parameters."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs")
    return Runs(
        codec_run(config, folder / "codec"),
        vocoder_run(config, folder / "vocoder", folder / "codec"),
        talker_run(config, folder / "talker"),
        thinker_run(config, folder / "thinker"),
        voices_file(config, folder / "voices.npz"),
    )


@pytest.fixture(scope="module")
def assembled(start_checkpoint: Path, runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    out = tmp_path_factory.mktemp("assembled") / "tiny"
    assert assemble(start_checkpoint, out, runs) == (out / SINGLE_NAME).stat().st_size <= 25_000_000
    return Checkpoint(out)


def stage_parameters(checkpoint: Checkpoint, name: str) -> dict[str, np.ndarray]:
    """The parameters of a stage as a build takes them from `checkpoint`."""
    stage = next(stage for stage in stages(checkpoint.config) if stage.name == name)
    return {
        parameter: source.assemble(*map(checkpoint.read, source.tensors))
        for parameter, source in stage.weights(checkpoint).items()
    }


def state(run: Path | None, name: str) -> dict[str, np.ndarray]:
    assert run is not None
    return {
        parameter: values.numpy()
        for parameter, values in torch.load(run / "state.pt", weights_only=True)["modules"][name].items()
    }


@pytest.mark.parametrize(
    "part", ["talker.talker", "talker.predictor", "thinker.thinker", "thinker.audio_encoder"]
)
def test_a_stage_has_the_trained_parameters(assembled: Checkpoint, runs: Runs, part: str) -> None:
    run, _, name = part.partition(".")
    found, expected = stage_parameters(assembled, name), state(getattr(runs, run), name)
    assert set(found) == set(expected)
    for parameter in set(found) - ({"code_embedding"} if name == "predictor" else set()):
        np.testing.assert_allclose(found[parameter], expected[parameter], **PRECISION, err_msg=parameter)


def test_the_predictor_reads_the_talkers_tables(assembled: Checkpoint) -> None:
    talker, predictor = stage_parameters(assembled, "talker"), stage_parameters(assembled, "predictor")
    np.testing.assert_array_equal(
        predictor["code_embedding"],
        np.concatenate((talker["codec_embedding"][:256], talker["residual_embedding"])),
    )


def test_code2wav_has_the_averaged_parameters_and_a_table_of_codebooks_and_projections(
    assembled: Checkpoint, runs: Runs
) -> None:
    assert assembled.config.code2wav is not None and runs.vocoder is not None
    vocoder = TrainedVocoder(assembled.config.code2wav)
    vocoder.load_state_dict(torch.load(runs.vocoder / "state.pt", weights_only=True)["modules"]["average"])
    found, expected = stage_parameters(assembled, "code2wav"), dict(vocoder.stage_module().named_parameters())
    assert set(found) == set(expected)
    for parameter, values in expected.items():
        # The table's values are sums of 32 products.
        atol = 0.1 if parameter == "code_embedding" else 0.01
        np.testing.assert_allclose(
            found[parameter], values.detach().numpy(), rtol=2e-2, atol=atol, err_msg=parameter
        )


def test_the_codec_encoder_gives_the_codes_it_was_trained_with(assembled: Checkpoint, runs: Runs) -> None:
    assert assembled.config.codec_encoder is not None and runs.codec is not None
    encoder = trainable_encoder(assembled.config.codec_encoder)
    encoder.load_state_dict(torch.load(runs.codec / "state.pt", weights_only=True)["modules"]["encoder"])
    encoder.eval()
    stage = next(stage for stage in stages(assembled.config) if stage.name == "codec_encoder")
    feeds = stage.example()
    with torch.no_grad():
        expected, _ = encoder(*(torch.from_numpy(feeds[spec.name]) for spec in stage.inputs))
    found = ModuleRunner(stage, assembled).run(feeds, {})["codes"]
    np.testing.assert_array_equal(found, expected.numpy())


def test_voices_lie_in_the_rows_of_their_names(assembled: Checkpoint, runs: Runs) -> None:
    assert assembled.config.talker is not None and runs.voices is not None
    table = assembled.read(VOICES_TENSOR)
    assert table.shape == (2, 16, max(LENGTHS.values())) and table.dtype == np.int64
    with np.load(runs.voices) as prompts:
        for name, row in assembled.config.talker.speaker_id.items():
            np.testing.assert_array_equal(table[row, :, : LENGTHS[name]], prompts[name].T)
            assert (table[row, :, LENGTHS[name] :] == -1).all()


def test_what_is_not_trained_stays(
    assembled: Checkpoint, start_checkpoint: Path, runs: Runs, tmp_path: Path
) -> None:
    start = Checkpoint(start_checkpoint)
    assert assembled.names() == start.names()
    same = {name for name in start.names() if assembled.digest(name) == start.digest(name)}
    assert same == {name for name in start.names() if "visual" in name}
    assemble(start_checkpoint, tmp_path / "codec", Runs(codec=runs.codec))
    codec = Checkpoint(tmp_path / "codec")
    changed = {name for name in start.names() if codec.digest(name) != start.digest(name)}
    assert changed and all(name.startswith("codec_encoder.") for name in changed)


def test_one_file_of_weights_lies_beside_what_the_start_had(
    assembled: Checkpoint, start_checkpoint: Path
) -> None:
    found, before = (
        {file.name for file in folder.iterdir()} for folder in (assembled.path, start_checkpoint)
    )
    assert {name for name in found if "safetensors" in name} == {SINGLE_NAME}
    assert found - {SINGLE_NAME} == {name for name in before if "safetensors" not in name}
    assert (assembled.path / "config.json").read_bytes() == (start_checkpoint / "config.json").read_bytes()
    assert {assembled.dtype(name) for name in assembled.names()} == {"BF16", "I64"}


def test_the_command_says_what_it_wrote_and_replaces_what_it_wrote_before(
    start_checkpoint: Path, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        str(start_checkpoint),
        str(tmp_path / "out"),
        "--codec",
        str(runs.codec),
        "--voices",
        str(runs.voices),
    ]
    main(arguments)
    first = (tmp_path / "out" / SINGLE_NAME).read_bytes()
    assert (
        capsys.readouterr().out
        == f"{tmp_path / 'out'}: model.safetensors of {len(first):,} bytes; trained: codec, voices\n"
    )
    main(arguments)
    assert (tmp_path / "out" / SINGLE_NAME).read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_vocoder_of_other_codebooks_is_refused(
    start_checkpoint: Path, config: OmniConfig, runs: Runs, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = codec_run(config, tmp_path / "codec")
    with pytest.raises(
        AntiphonError, match="was trained with other codebooks than those of .*codec; make the codes again"
    ):
        assemble(start_checkpoint, tmp_path / "out", Runs(codec=other, vocoder=runs.vocoder))
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_somebody_elses_is_not_replaced(
    start_checkpoint: Path, runs: Runs, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assemble(start_checkpoint, out, Runs(codec=runs.codec))
    (out / "README.md").write_text("mine")
    with pytest.raises(AntiphonError, match=r"is no earlier result of this command \(README.md\)"):
        assemble(start_checkpoint, out, Runs(codec=runs.codec))
    assert (out / "README.md").read_text() == "mine"
    with pytest.raises(AntiphonError, match="no earlier result"):
        assemble(start_checkpoint, start_checkpoint, Runs())
    assert (start_checkpoint / "config.json").is_file()


def test_more_keys_of_generation_config_are_added_to_those_that_there_are(
    start_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "paces.json").write_text('{"frames_per_text": 2.5, "talker_top_k": 9}')
    assemble(start_checkpoint, tmp_path / "out", Runs(generation=tmp_path / "paces.json"))
    before, after = (
        json.loads((folder / "generation_config.json").read_text())
        for folder in (start_checkpoint, tmp_path / "out")
    )
    assert after == before | {"frames_per_text": 2.5, "talker_top_k": 9}


def of_nothing(runs: Runs, folder: Path) -> Runs:
    return Runs(codec=folder)


def of_another_part(runs: Runs, folder: Path) -> Runs:
    return Runs(talker=runs.thinker)


def of_other_sizes(runs: Runs, folder: Path) -> Runs:
    return Runs(thinker=save(folder / "run", thinker=nn.Linear(2, 2), audio_encoder=nn.Linear(2, 2)))


def voices_of_others(runs: Runs, folder: Path) -> Runs:
    np.savez(folder / "voices.npz", joe=np.zeros((3, 16), int))
    return Runs(voices=folder / "voices.npz")


def voices_of_other_codes(runs: Runs, folder: Path) -> Runs:
    np.savez(folder / "voices.npz", joe=np.zeros((3, 16), int), espeak=np.full((3, 16), 256))
    return Runs(voices=folder / "voices.npz")


def voices_that_are_none(runs: Runs, folder: Path) -> Runs:
    (folder / "voices.npz").write_text("joe")
    return Runs(voices=folder / "voices.npz")


def keys_that_are_none(runs: Runs, folder: Path) -> Runs:
    (folder / "paces.json").write_text("[1]")
    return Runs(generation=folder / "paces.json")


REFUSED: dict[Callable[[Runs, Path], Runs], str] = {
    of_nothing: "state.pt is missing; give the folder of a training",
    of_another_part: "holds the modules thinker, audio_encoder, hearing, expected talker among them",
    of_other_sizes: "thinker: parameter embedding is missing among the trained ones",
    voices_of_others: "has no voice espeak; expected joe, espeak",
    voices_of_other_codes: r"voice espeak is \[3, 16\], expected \[frames, 16\] codes below 256",
    voices_that_are_none: "cannot be read",
    keys_that_are_none: "is no JSON object",
}


@pytest.mark.parametrize("spoilt", REFUSED, ids=lambda spoilt: spoilt.__name__)
def test_a_run_that_does_not_fit_leaves_nothing_behind(
    start_checkpoint: Path, runs: Runs, tmp_path: Path, spoilt: Callable[[Runs, Path], Runs]
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    with pytest.raises(AntiphonError, match=REFUSED[spoilt]):
        assemble(start_checkpoint, tmp_path / "out", spoilt(runs, folder))
    assert [file.name for file in tmp_path.iterdir()] == ["given"]


def test_a_folder_that_holds_something_else_is_not_replaced(start_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(AntiphonError, match="exists and is no earlier result of this command"):
        assemble(start_checkpoint, tmp_path, Runs())
    assert (tmp_path / "letters.txt").read_text() == "dear"


def test_weights_larger_than_the_repository_takes_are_refused(
    start_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_BYTES", 24_000_000)
    with pytest.raises(AntiphonError, match="expected at most 24,000,000"):
        assemble(start_checkpoint, tmp_path / "out", Runs())
    assert not list(tmp_path.iterdir())
