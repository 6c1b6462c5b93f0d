"""Inputs that put every path of a stage to work: several calls in a row with the states carried along."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..graphs.decoder_specs import greedy_sampling
from ..graphs.stage import Stage

Feeds = dict[str, np.ndarray]
CALLS = (24, 5, 1)
"""Rows of the calls to a decoder stage: a prefill, a further chunk, one step."""
PACKETS = (1, 2, 5)
"""Frames of the calls to Code2Wav."""


def probes(stage: Stage, seed: int = 0) -> list[Feeds]:
    """Feeds of successive calls to `stage`, one stream, from `seed`. Decoder stages ask for the logits of every row."""
    noise = np.random.default_rng(seed)
    return _MAKERS.get(stage.name, _example)(stage, noise)


def _example(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    """A stateless encoder: its own example with random values."""
    return [{name: noise.standard_normal(value.shape).astype(np.float32) if _is_signal(name) else value for name, value in stage.example().items()}]


def _is_signal(name: str) -> bool:
    return name in ("chunks", "pixels")


def _thinker(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    size, vocab, layers = (stage.size(name) for name in ("hidden_size", "vocab_size", "deepstack_layers"))
    calls = []
    for feeds, rows in _decoder_calls(vocab):
        features = rows // 4
        feeds |= {
            "input_ids": noise.integers(0, vocab, (1, rows)), "features": noise.standard_normal((features, size)).astype(np.float32),
            "feature_index": np.arange(1, 1 + features),
        }  # fmt: skip
        if layers:
            visuals = features // 2
            feeds |= {"deepstack": noise.standard_normal((layers, visuals, size)).astype(np.float32), "deepstack_index": np.arange(1, 1 + visuals)}
        calls.append(feeds)
    return calls


def _talker(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    size, vocab, thinker_size = (stage.size(name) for name in ("hidden_size", "vocab_size", "thinker_hidden_size"))
    calls = []
    for feeds, rows in _decoder_calls(vocab):
        hiddens = rows // 3
        text, codec = noise.integers(0, vocab, (1, rows)), noise.integers(0, vocab, (1, rows))
        text[0, 1 : 1 + hiddens] = codec[0, : rows // 2] = -1
        feeds |= {
            "text_ids": text, "codec_ids": codec, "hidden": noise.standard_normal((hiddens, thinker_size)).astype(np.float32),
            "hidden_index": np.arange(1, 1 + hiddens), "frame_rows": noise.standard_normal((1, size)).astype(np.float32), "frame_index": np.array([rows - 1]),
        }  # fmt: skip
        calls.append(feeds)
    return calls


def _decoder_calls(vocab: int) -> list[tuple[Feeds, int]]:
    calls, past = [], 0
    for rows in CALLS:
        positions = np.broadcast_to((past + np.arange(rows)).astype(np.float32), (3, 1, rows)).copy()
        positions[1:] *= np.float32(0.5)  # height and width of a picture differ from its time
        feeds = {
            "positions": positions, "query_length": np.array([rows]), "past_length": np.array([past]), "output_index": np.arange(rows),
        } | greedy_sampling(rows, vocab)  # fmt: skip
        calls.append((feeds, rows))
        past += rows
    return calls


def _predictor(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    """Feeds of the frame engine; the module's steps follow from the codes that it returns."""
    size, codebook, groups = (stage.size(name) for name in ("hidden_size", "codebook_size", "code_groups"))
    return [
        {
            "hidden": noise.standard_normal((1, size)).astype(np.float32), "code0": noise.integers(0, codebook, 1),
            "noise": noise.random((1, groups - 1), dtype=np.float32), "temperature": np.ones(1, np.float32), "top_k": np.zeros(1, np.int64),
            "top_p": np.ones(1, np.float32),
        }
    ]  # fmt: skip


def _code2wav(stage: Stage, noise: np.random.Generator) -> list[Feeds]:
    codebook, groups = stage.size("codebook_size"), stage.size("num_quantizers")
    calls, past = [], 0
    for frames in PACKETS:
        calls.append({"codes": noise.integers(0, codebook, (1, frames, groups)), "past_length": np.array([past])})
        past += frames
    return calls


_MAKERS: dict[str, Callable[[Stage, np.random.Generator], list[Feeds]]] = {
    "thinker": _thinker, "talker": _talker, "predictor": _predictor, "code2wav": _code2wav,
}  # fmt: skip
