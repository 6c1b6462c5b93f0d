"""Writes the voices of a checkpoint whose Talker is prompted with codec frames."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ..graphs.checkpoints.checkpoint import Checkpoint
from ..graphs.config import TalkerConfig
from ..runtime.bundle.errors import AntiphonError
from ..runtime.stages.voices import VOICES_FILE

TENSOR = "talker.speaker_codec_embeddings"


def write_voices(checkpoint: Checkpoint, talker: TalkerConfig, folder: Path) -> None:
    """Write the table of codec prompts, int64 [speakers, groups, frames] padded with -1, into the front-end
    folder `folder`.

    Raises AntiphonError if the checkpoint has no such table or its table contradicts config.json.
    """
    table = checkpoint.read(TENSOR)
    where = f"{checkpoint.path}: tensor {TENSOR}"
    if table.ndim != 3 or table.shape[1] != talker.num_code_groups or table.dtype != np.int64:
        raise AntiphonError(
            f"{where} is {table.dtype} {list(table.shape)}, expected int64 [speakers, "
            f"{talker.num_code_groups}, frames]; use a complete checkpoint."
        )
    if table.max(initial=-1) >= talker.predictor.vocab_size or table.min(initial=0) < -1:
        raise AntiphonError(
            f"{where} holds codes outside -1 .. {talker.predictor.vocab_size - 1}; "
            "use the config.json that belongs to these weights."
        )
    for name, row in talker.speaker_id.items():
        if row >= len(table) or not (table[row] >= 0).all(0).any():
            raise AntiphonError(
                f"{where} has no frames in row {row} of speaker {name} ({len(table)} rows); "
                "use the config.json of these weights."
            )
    content = io.BytesIO()
    np.save(content, table)
    (folder / VOICES_FILE).write_bytes(content.getbuffer())  # np.save to a file does not report a full disk
