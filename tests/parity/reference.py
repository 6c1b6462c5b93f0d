"""The public reference, driven with our own prompts: HF `generate` on one checkpoint,
and how decisive each of its choices was.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList, Qwen3OmniMoeForConditionalGeneration

from antiphon.runtime.frontend.audio.mel import log_mel
from antiphon.runtime.frontend.audio.recording import read_audio
from antiphon.runtime.frontend.prompt.front_end import FrontEnd, Prompt

DECISIVE = 1e-3
"""Greedy choices are compared only where the two best logits differ by more than this."""


@dataclass(frozen=True)
class Answer:
    """What HF answered: ids [tokens], codes [frames, 16], waveform [samples],
    and the smallest top-two margin of all its choices.
    """

    token_ids: list[int]
    codes: np.ndarray
    audio: np.ndarray
    margin: float


def load_reference(checkpoint: Any) -> Any:
    """The HF model in float32 with eager attention."""
    model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    # HF's Talker cannot place audio and vision together without this: get_rope_index reads a
    # field that its config lacks.
    model.talker.config.audio_config = model.config.thinker_config.audio_config
    return model


def media_inputs(front_end: FrontEnd, prompt: Prompt, clips: list[np.ndarray]) -> dict[str, Any]:
    """HF's inputs for the media of `prompt`; `clips` are its sounds at 16 kHz in order."""
    inputs: dict[str, Any] = {}
    if clips:
        mels = log_mel([read_audio(clip, 16000, 16000) for clip in clips], front_end._mel)
        longest = max(mel.shape[1] for mel in mels)
        features, mask = (
            torch.zeros(len(mels), mels[0].shape[0], longest),
            torch.zeros(len(mels), longest, dtype=torch.long),
        )
        for number, mel in enumerate(mels):
            features[number, :, : mel.shape[1]], mask[number, : mel.shape[1]] = torch.from_numpy(mel), 1
        inputs |= {"input_features": features, "feature_attention_mask": mask}
    frames = [call.feeds()["pixels"] for call in prompt.calls if call.stage == "vision_encoder"]
    pixels = [torch.from_numpy(patches.reshape(-1, patches.shape[2])) for patches in frames]
    pictures = [item for item in prompt.media if item.kind in ("image", "video")]
    for kind, values, grids in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        chosen = [number for number, item in enumerate(pictures) if item.kind == kind]
        if chosen:
            inputs |= {
                values: torch.cat([pixels[number] for number in chosen]),
                grids: torch.tensor([pictures[number].grid for number in chosen]),
            }
    videos = [item for item in pictures if item.kind == "video"]
    if videos:
        inputs["video_second_per_grid"] = torch.tensor(
            [item.seconds_per_grid for item in videos], dtype=torch.float32
        )
        inputs["use_audio_in_video"] = any(item.audio_tokens for item in videos)
    return inputs


def generate(
    model: Any,
    token_ids: np.ndarray,
    inputs: dict[str, Any],
    tokens: int,
    frames: int,
    speaker: str = "Ethan",
) -> Answer:
    """Greedy text and speech of HF for one prompt: at most `tokens` text tokens and `frames` frames."""
    ids = torch.from_numpy(np.asarray(token_ids, np.int64))[None]
    seen: dict[str, Any] = {}
    decode = model.code2wav.chunked_decode

    def record(codes: torch.Tensor, **options: Any) -> torch.Tensor:
        seen["codes"] = codes[0].T.numpy()
        return decode(codes, **options)

    model.code2wav.chunked_decode = record
    try:
        with torch.no_grad(), recorded_margins() as margins:
            sequence, audio = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                speaker=speaker,
                thinker_max_new_tokens=tokens,
                thinker_do_sample=False,
                thinker_eos_token_id=model.config.im_end_token_id,
                talker_do_sample=False,
                talker_max_new_tokens=frames + 1,
                **inputs,
            )
    finally:
        model.code2wav.chunked_decode = decode
    return Answer(sequence[0, ids.shape[1] :].tolist(), seen["codes"], audio[0, 0].numpy(), min(margins))


@contextmanager
def recorded_margins() -> Any:
    """Collects the difference of the two best processed logits at every step of every `generate`."""
    margins: list[float] = []
    call = LogitsProcessorList.__call__

    def recording(self: Any, input_ids: torch.Tensor, scores: torch.Tensor, **options: Any) -> torch.Tensor:
        processed = call(self, input_ids, scores, **options)
        best = torch.topk(processed.float(), 2, dim=-1).values
        margins.append(float((best[:, 0] - best[:, 1]).min()))
        return processed

    LogitsProcessorList.__call__ = recording  # type: ignore[method-assign]
    try:
        yield margins
    finally:
        LogitsProcessorList.__call__ = call  # type: ignore[method-assign]
