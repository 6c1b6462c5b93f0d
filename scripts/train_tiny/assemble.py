"""Assembles one checkpoint from the trained parts.

    python -m antiphon.scripts.train_tiny.assemble START OUT [--codec RUN] [--vocoder RUN] [--talker RUN]
        [--thinker RUN] [--voices FILE.npz] [--generation FILE.json]

START is the checkpoint of random weights from which the trainings began (train_tiny.shape). A part without a
run keeps its weights. OUT gets the same configuration, tokenizer and templates, and one model.safetensors in
bfloat16. FILE.npz holds the codec prompt of every voice, int [frames, groups], under the voice's name. The
keys of FILE.json are added to generation_config.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...export.voices import TENSOR as VOICES_TENSOR
from ...graphs.checkpoints.checkpoint import Checkpoint
from ...graphs.checkpoints.safetensors_folder import INDEX_NAME, SINGLE_NAME
from ...graphs.config import TalkerConfig
from ...graphs.families.registry import stages
from ...graphs.random.atomic_folder import whole_checkpoint
from ...graphs.stage import Stage
from ...runtime.bundle.errors import AntiphonError
from .command import command
from .stored import Stored, codebook_tensors, merged, stored_tensors

LARGEST_BYTES = 25_000_000
"""Limit of model.safetensors, because it is stored in the repository."""
Parameters = dict[str, np.ndarray]


@dataclass(frozen=True)
class Runs:
    """Folders of finished trainings (run.Run), the file of codec prompts, and the file of keys for
    generation_config.json.

    A part with None is not changed.
    """

    codec: Path | None = None
    vocoder: Path | None = None
    talker: Path | None = None
    thinker: Path | None = None
    voices: Path | None = None
    generation: Path | None = None


def assemble(start: Path, out: Path, runs: Runs) -> int:
    """Write the checkpoint `out` and return the bytes of its weights.

    It is written under a temporary name and renamed; an earlier checkpoint at `out` is replaced. Raises
    AntiphonError for a run that does not fit `start`, an `out` that holds something else, and weights of more
    than LARGEST_BYTES.
    """
    checkpoint = Checkpoint(start)
    copied = [
        file
        for file in checkpoint.path.iterdir()
        if file.is_file() and file.suffix != ".safetensors" and file.name != INDEX_NAME
    ]
    if out.exists():
        others = (
            {file.name for file in out.iterdir()} - {SINGLE_NAME, *(file.name for file in copied)}
            if out.is_dir()
            else {"no folder"}
        )
        if others or out.resolve() == checkpoint.path.resolve():
            raise AntiphonError(
                f"{out} exists and is no earlier result of this command "
                f"({min(others, default='it is START')}); give a new folder."
            )
    tensors = replaced(checkpoint, trained_tensors(checkpoint, runs))
    with whole_checkpoint(out, replace=True) as beside:
        for file in copied:
            shutil.copyfile(file, beside / file.name)
        if runs.generation:
            _add_keys(beside / "generation_config.json", runs.generation)
        written = _write(beside / SINGLE_NAME, tensors)
    return written


def trained_tensors(checkpoint: Checkpoint, runs: Runs) -> Stored:
    """The tensors of every part that has a run."""
    by_name = {stage.name: stage for stage in stages(checkpoint.config)}
    parts: list[Stored] = []
    if runs.codec:
        parts.append(
            stored_tensors(
                by_name["codec_encoder"], checkpoint, codec_parameters(module_state(runs.codec, "encoder"))
            )
        )
    if runs.vocoder:
        parts.append(vocoder_tensors(by_name["code2wav"], checkpoint, runs.vocoder))
    if runs.codec and runs.vocoder:
        _expect_same_codebooks(runs.codec, runs.vocoder)
    if runs.talker:
        talker, predictor = module_state(runs.talker, "talker"), module_state(runs.talker, "predictor")
        # The predictor reads the Talker's tables; its own copy was not trained.
        codes = by_name["predictor"].size("codebook_size")
        predictor["code_embedding"] = np.concatenate(
            (talker["codec_embedding"][:codes], talker["residual_embedding"])
        )
        parts += [
            stored_tensors(by_name[name], checkpoint, state)
            for name, state in (("talker", talker), ("predictor", predictor))
        ]
    if runs.thinker:
        parts += [
            stored_tensors(by_name[name], checkpoint, module_state(runs.thinker, name))
            for name in ("thinker", "audio_encoder")
        ]
    if runs.voices:
        assert checkpoint.config.talker is not None
        parts.append({VOICES_TENSOR: voice_table(runs.voices, checkpoint.config.talker)})
    return merged(*parts)


def _expect_same_codebooks(codec: Path, vocoder: Path) -> None:
    """Raise AntiphonError unless Code2Wav was trained with the codebooks of the codec, which may have trained
    further since."""
    encoder = module_state(codec, "encoder")
    if not np.array_equal(
        np.concatenate((encoder["semantic.entries"], encoder["acoustic.entries"])),
        module_state(vocoder, "average")["entries"],
    ):
        raise AntiphonError(
            f"{vocoder} was trained with other codebooks than those of {codec}; "
            "make the codes again and train Code2Wav and the Talker with them."
        )


def module_state(run: Path, module: str) -> Parameters:
    """Parameters and buffers of one module of a run, float32. Raises AntiphonError if there is none."""
    file = run / "state.pt"
    try:
        modules = torch.load(file, weights_only=True, map_location="cpu")["modules"]
    except (FileNotFoundError, NotADirectoryError):
        raise AntiphonError(
            f"{file} is missing; give the folder of a training that has saved its state."
        ) from None
    if module not in modules:
        raise AntiphonError(
            f"{file} holds the modules {', '.join(modules)}, expected {module} among them; "
            "give the run of this part."
        )
    return {name: values.float().numpy() for name, values in modules[module].items()}


def codec_parameters(state: Parameters) -> Parameters:
    """The parameters of the codec's stage, from the trained codec (codec_training.TrainedQuantiser)."""
    parameters: Parameters = {}
    for name, values in state.items():
        side, _, part = name.partition(".")
        if part == "entries":
            parameters |= {
                f"{side}.codebooks.{index}.entries": entries for index, entries in enumerate(values)
            }
        elif part not in ("sums", "usage"):
            parameters[name] = values
    return parameters


def vocoder_tensors(stage: Stage, checkpoint: Checkpoint, run: Path) -> Stored:
    """The tensors of Code2Wav from the averaged weights of a run of vocoder_training."""
    state = module_state(run, "average")
    parameters = {
        name.removeprefix("module."): values for name, values in state.items() if name.startswith("module.")
    }
    assert checkpoint.config.code2wav is not None
    # The table of codes is the product of codebooks and projections, which are stored next to the stage's
    # module.
    codebooks = codebook_tensors(
        checkpoint.config.code2wav, state["entries"], state["semantic"].T, state["acoustic"].T
    )
    return merged(stored_tensors(stage, checkpoint, parameters, apart=("code_embedding",)), codebooks)


def voice_table(file: Path, talker: TalkerConfig) -> np.ndarray:
    """Codec prompts int64 [voices, groups, frames], padded with -1, in the row order that config.json gives
    the voices."""
    rows = talker.speaker_id
    try:
        with np.load(file) as arrays:
            prompts = {name: arrays[name] for name in rows if name in arrays}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise AntiphonError(
            f"{file} cannot be read ({error}); give an .npz file with an array of codes for every voice."
        ) from None
    groups, codes = talker.num_code_groups, talker.predictor.vocab_size
    for name in rows:
        if name not in prompts:
            raise AntiphonError(f"{file} has no voice {name}; expected {', '.join(rows)}.")
        prompt = prompts[name]
        if (
            prompt.ndim != 2
            or prompt.shape[1] != groups
            or not len(prompt)
            or prompt.min() < 0
            or prompt.max() >= codes
        ):
            raise AntiphonError(
                f"{file}: voice {name} is {list(prompt.shape)}, expected [frames, {groups}] codes below "
                f"{codes}; encode the voice again."
            )
    table = np.full((max(rows.values()) + 1, groups, max(map(len, prompts.values()))), -1, np.int64)
    for name, row in rows.items():
        table[row, :, : len(prompts[name])] = prompts[name].T
    return table


def replaced(checkpoint: Checkpoint, trained: Stored) -> Stored:
    """All tensors of `checkpoint`, with those of `trained` in place of its own."""
    tensors: Stored = {}
    assert trained.keys() <= set(checkpoint.names()), (
        f"unknown tensors {sorted(trained.keys() - set(checkpoint.names()))}"
    )
    for name in checkpoint.names():
        tensor = trained.get(name)
        tensors[name] = checkpoint.read(name) if tensor is None else tensor
        if np.isnan(tensors[name]).any():
            raise AntiphonError(
                f"Tensor {name} is trained in part only; give the runs of all parts that share it."
            )
        if name != VOICES_TENSOR:
            checkpoint.expect_shape(name, tensors[name].shape)
    return tensors


def _add_keys(config: Path, more: Path) -> None:
    """Add the keys of the JSON file `more` to the JSON file `config`."""
    keys = json.loads(config.read_text(encoding="utf-8"))
    try:
        keys |= json.loads(more.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise AntiphonError(
            f"{more} is no JSON object ({error}); give the file of train_tiny.paces."
        ) from None
    config.write_text(json.dumps(keys, indent=2) + "\n", encoding="utf-8")


def _write(file: Path, tensors: Stored) -> int:
    """Write floating tensors as bfloat16 and integers unchanged; return the file's bytes."""
    from safetensors.torch import save

    stored = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in tensors.items()}
    size = file.write_bytes(
        save(
            {
                name: values.bfloat16() if values.is_floating_point() else values
                for name, values in stored.items()
            },
            {"format": "pt"},
        )
    )
    if size > LARGEST_BYTES:
        raise AntiphonError(
            f"The weights take {size:,} bytes, expected at most {LARGEST_BYTES:,}; "
            "shorten the voices' prompts or make the model smaller."
        )
    return size


def main(arguments: Iterable[str] | None = None) -> None:
    """Assemble from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("start", type=Path)
    parser.add_argument("out", type=Path)
    for name in ("codec", "vocoder", "talker", "thinker", "voices", "generation"):
        parser.add_argument(f"--{name}", type=Path)
    given = vars(parser.parse_args(arguments if arguments is None else list(arguments)))
    start, out = given.pop("start"), given.pop("out")
    size = assemble(start, out, Runs(**given))
    parts = [name for name, run in given.items() if run]
    print(f"{out}: {SINGLE_NAME} of {size:,} bytes; trained: {', '.join(parts) or 'nothing'}")


if __name__ == "__main__":
    command(main)
