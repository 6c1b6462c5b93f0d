"""How fast the model's voices speak, as numbers of its checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from antiphon.scripts.train_tiny.corpus import Corpus, Item
from antiphon.scripts.train_tiny.paces import paces


def test_the_slowest_quantile_is_that_of_the_fastest_voice_and_the_median_of_all(
    start_checkpoint: Path, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.from_file(str(start_checkpoint / "tokenizer.json"))
    text = "It is seven forty five."
    tokens = len(tokenizer.encode(text, add_special_tokens=False).ids)
    items = [
        Item(role, voice, "time", text, 0)
        for role, voice in (("answer", "joe"), ("answer", "joe"), ("answer", "espeak"), ("prompt", "many"))
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(asdict(item)) for item in items))
    (tmp_path / "audio.i16").write_bytes(bytes(2))
    codes = [np.zeros((tokens * frames, 16), np.uint8) for frames in (4, 4, 2, 9)]
    assert paces(Corpus(tmp_path), codes, tokenizer) == {"frames_per_text": 2.0, "frames_per_token": 4.0}
