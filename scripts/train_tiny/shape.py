"""The sizes, configuration and tokenizer of the tiny model, and a checkpoint of random weights to start from.

python -m antiphon.scripts.train_tiny.shape START
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

from ...graphs.checkpoints.read_config import read_config
from ...graphs.families.qwen3_5_omni.family import FAMILY
from ...graphs.families.qwen3_5_omni.random_sizes import CodecEncoder, Qwen35Size, qwen3_5_configuration
from ...graphs.random import frontend, tokenizer, writer
from ...graphs.random.atomic_folder import whole_checkpoint
from ...graphs.random.config_sections import Decoder, Encoder, Vocoder
from ...graphs.random.tensors import all_tensors
from ...graphs.random.weight_layouts import arrange
from ...runtime.bundle.errors import AntiphonError
from .command import command
from .domain import draw

SIZE = Qwen35Size(
    thinker=Decoder(4, 192, 3, 1, 64, 384, 8, 2, 128, 64, (1, 64)),
    talker=Decoder(4, 192, 3, 1, 64, 384, 8, 2, 128, 64, (1, 64)),
    predictor=Decoder(3, 128, 2, 2, 64, 192),
    vocoder=Vocoder(256, 2, 128, 2, 256, 256),
    code_dim=32,
    codec=CodecEncoder(12, 2, 128, 2, 256, 32),
    audio=Encoder(3, 192, 3, 224, channels=32),
    vision=Encoder(1, 16, 2, 32),
    draft=False,
)
VOICES = ("joe", "espeak")
VOCABULARY = 1024
"""Size of the text vocabulary, including special tokens."""
CODEC_VOCABULARY = 272
CODEC_IDS = {
    "codec_pad_id": 256,
    "codec_bos_id": 257,
    "codec_eos_token_id": 258,
    "codec_think_id": 259,
    "codec_nothink_id": 260,
    "codec_think_bos_id": 261,
    "codec_think_eos_id": 262,
}
LANGUAGES = {"english": 264}
CORPUS_LINES = 20_000
GENERATION = {
    "talker_temperature": 0.5,
    "talker_top_k": 20,
    "talker_repetition_penalty": 1.0,
    "predictor_temperature": 0.05,
    "interleave": "adaptive",
}
"""Keys of generation_config.json.

Temperatures are below the family's 0.9: a small predictor's codes have nearly even probabilities, and samples
from them sound like noise. There is no penalty, because codes repeat where words do. The text is fed at the
pace of the speech: with all text at once, long answers lost their place (docs/tiny-model.md).
"""


def text_tokenizer() -> Any:
    """The tokenizer, trained on the training contents; every call gives the same."""
    choice = random.Random("tokenizer")
    lines = []
    for _ in range(CORPUS_LINES):
        exchange = draw(choice, held_out=False)
        lines += [exchange.typed, exchange.spoken, exchange.answer]
    return tokenizer.train_on(lines, VOCABULARY - len(tokenizer.SPECIAL_TOKENS))


def configuration(tokens: tokenizer.TokenIds) -> dict[str, Any]:
    """The `config.json` object."""
    config = qwen3_5_configuration(SIZE, tokens, "bfloat16")
    talker = config["talker_config"]
    talker.update(CODEC_IDS)
    talker.update(
        talker_language_id=LANGUAGES,
        speaker_id={name: row for row, name in enumerate(VOICES)},
        speaker_system_prompt_id={},
        talker_assistant_prompt_id_mapping={},
    )
    talker["text_config"]["vocab_size"] = CODEC_VOCABULARY
    for section in (config["thinker_config"], talker):
        section["text_config"]["max_position_embeddings"] = 8192
    return config


def starting_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint of random weights with the tiny model's tokenizer and configuration to the new
    folder `folder`.

    It is written completely or not at all.
    """
    if folder.exists():
        raise AntiphonError(f"{folder} exists; give a new folder, or go on with the one that is there.")
    with whole_checkpoint(folder) as beside:
        trained = text_tokenizer()
        tokens = tokenizer.token_ids(trained)
        frontend.save(beside, configuration(tokens), tokens)
        generation = beside / "generation_config.json"
        generation.write_text(
            json.dumps(json.loads(generation.read_text(encoding="utf-8")) | GENERATION, indent=2) + "\n",
            encoding="utf-8",
        )
        tokenizer.save(trained, beside, FAMILY.random().model_max_length)
        # Code2Wav is kept in float32 in the published family's own folder for it; here it lies
        # beside the rest, in bfloat16.
        tensors = [
            dataclasses.replace(tensor, dtype="" if tensor.dtype == "float32" else tensor.dtype)
            for tensor in all_tensors(read_config(beside))
        ]
        entries = arrange(tensors, "bfloat16", "fused", "split")
        writer.write(beside, entries, seed, writer.Progress(entries, None))
    return folder


def main() -> None:
    """Write the checkpoint from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("start", type=Path)
    starting_checkpoint(parser.parse_args().start)


if __name__ == "__main__":
    command(main)
