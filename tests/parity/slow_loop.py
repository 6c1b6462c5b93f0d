"""The slow reference of Qwen3.5-Omni's assembled loop: HF backbones, rows listed from the specification,
the whole sequence read again at each chunk.

Written from model-spec 2.3 and 2.1 alone; of the runtime it uses nothing. The code predictor, which has no
public reference, is the float64 formula.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig, Qwen3_5MoeTextModel

from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.graphs.config import OmniConfig

from ..graphs.decoder_formula import decoder_layer, zero_centred_norm

PENALTY_FRAMES = 64

Parts = list[tuple[int, int | None]]
"""(text rows, frames after them) of each chunk; the frames of the last one, None,
go on to the end of speech.
"""


def chunked(items: int, text_rows: int, frames: int) -> Parts:
    """`items` rows of text, tts_eos among them, a chunk at a time."""
    sizes = [min(text_rows, items - start) for start in range(0, items, text_rows)]
    return [*((size, frames) for size in sizes[:-1]), (sizes[-1], None)]


def adaptive(items: int, lead: int, ratio: Fraction) -> Parts:
    """After each row of text all frames that keep frames / text rows at most `ratio`;
    at least `lead` rows before the first frame.
    """
    parts: Parts = []
    rows = fed = frames = 0
    while rows < items:
        rows += 1
        allowed = int(ratio * rows)
        if rows == items:
            parts.append((rows - fed, None))
        elif rows >= lead and allowed > frames:
            parts.append((rows - fed, allowed - frames))
            fed, frames = rows, allowed
    return parts


@dataclass(frozen=True)
class SpeakingStyle:
    """How the answer is spoken: the voice's codes [frames, 16] and text ids,
    text ids of styles in words and by name, a language.
    """

    voice: np.ndarray
    voice_ids: Sequence[int] = ()
    style_ids: Sequence[int] = ()
    named_style_ids: Sequence[int] = ()
    language: int | None = None


@dataclass(frozen=True)
class Speech:
    """What the loop chose: codes [frames, 16], the margin of each choice between the two best, raw logits
    [frames, vocabulary], the frames at which a chunk begins, those at which the end was best but forbidden,
    and whether it was chosen at last.
    """

    codes: np.ndarray
    margins: np.ndarray
    logits: np.ndarray
    boundaries: list[int]
    forbidden: list[int]
    ended: bool


class SlowLoop:
    """Thinker and Talker of one checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self.raw: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
        self.config: OmniConfig = read_config(checkpoint)
        self.tensors: dict[str, torch.Tensor] = {}
        for shard in sorted(checkpoint.glob("*.safetensors")):
            self.tensors |= {
                name: tensor if tensor.dtype == torch.int64 else tensor.float()
                for name, tensor in load_file(shard).items()
            }
        self.thinker = self._backbone(
            Qwen3_5MoeForCausalLM,
            self.raw["thinker_config"]["text_config"],
            {"model.": "thinker.model.", "lm_head.": "thinker.lm_head."},
        )
        # HF's table of embeddings is that of the text, and never looked at
        talker = self.raw["talker_config"]
        self.talker = self._backbone(
            Qwen3_5MoeTextModel,
            talker["text_config"] | {"vocab_size": talker["text_vocab_size"]},
            {"": "talker.model."},
        )
        self.arrays = {
            name: tensor.numpy()
            for name, tensor in self.tensors.items()
            if name.startswith("talker.code_predictor.")
        }
        self.ids = self.raw | self.raw["talker_config"]
        self.newline = 198

    def read(
        self,
        token_ids: np.ndarray,
        positions: np.ndarray | None = None,
        features: Mapping[int, np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The Thinker over whole `token_ids`: logits [tokens, vocabulary] and the tapped rows
        [tokens, hidden]; `features` replace embeddings by row.
        """
        rows = self.tensors["thinker.model.embed_tokens.weight"][torch.from_numpy(np.asarray(token_ids))]
        for row, feature in (features or {}).items():
            rows[row] = torch.from_numpy(feature)
        options = (
            {} if positions is None else {"position_ids": torch.from_numpy(np.asarray(positions))[:, None]}
        )
        with torch.no_grad():
            out = self.thinker(
                inputs_embeds=rows[None], output_hidden_states=True, use_cache=False, **options
            )
        return out.logits[0].numpy(), out.hidden_states[self.ids["accept_hidden_layer"]][0].numpy()

    def prompt(self, token_ids: np.ndarray, hidden: np.ndarray, style: SpeakingStyle) -> torch.Tensor:
        """Rows [rows, hidden] before the answer's text: system part, user parts, assistant part."""
        ids = self.ids
        rows = [
            *self._text(
                ids["im_start_token_id"],
                ids["system_token_id"],
                self.newline,
                *style.style_ids,
                *style.voice_ids,
            )
        ]
        rows += [
            *self._codec(ids["codec_bos_id"]),
            *(self._frame(codes) for codes in style.voice),
            *self._codec(ids["codec_eos_token_id"]),
        ]
        rows += self._text(ids["im_end_token_id"], self.newline)
        for turn in self._user_turns(np.asarray(token_ids).tolist()):
            spoken = {ids["im_start_token_id"], ids["im_end_token_id"], ids["user_token_id"], self.newline}
            content = [place for place, token in turn if token not in spoken]
            limit = ids["max_thinker_to_talker_mm_tokens"]
            if len(content) > limit:
                content = [
                    content[int(Fraction(len(content) - 1, limit - 1) * step)] for step in range(limit)
                ]
            for place, token in turn:
                if token in spoken:
                    rows += self._text(token)
                elif place in content:
                    weight, bias = (
                        self.tensors[f"talker.hidden_projection.{name}"] for name in ("weight", "bias")
                    )
                    rows.append(weight @ torch.from_numpy(hidden[place]) + bias)
        rows += self._text(
            ids["im_start_token_id"], ids["assistant_token_id"], self.newline, *style.named_style_ids
        )
        names = ["codec_nothink_id"] if style.language is None else ["codec_think_id"]
        language = [] if style.language is None else [style.language]
        rows += self._codec(ids[names[0]], ids["codec_think_bos_id"], *language, ids["codec_think_eos_id"])
        rows += [*self._text(ids["tts_bos_token_id"]), *self._codec(ids["codec_bos_id"])]
        return torch.stack(rows)

    def speak(
        self,
        prompt: torch.Tensor,
        text_ids: Sequence[int],
        parts: Parts,
        frames: int,
        restarts: bool = True,
        penalty: float = 1.05,
        least: int = 1,
        follow: np.ndarray | None = None,
    ) -> Speech:
        """From `least` to `frames` frames for `text_ids`.

        `restarts`: the repetition penalty forgets at each chunk, else it covers the last 64 frames.

        `follow`: codes to go on with in place of the loop's own choices (teacher forcing); every choice is
        then made for the same past.
        """
        waiting, end = [*text_ids, self.ids["tts_eos_token_id"]], self.ids["codec_eos_token_id"]
        sequence, said, chosen, logits, margins, boundaries, forbidden = prompt, [], [], [], [], [], []
        for text_rows, count in parts:
            sequence = torch.cat([sequence, *(row[None] for row in self._text(*waiting[:text_rows]))])
            waiting = waiting[text_rows:]
            rows, cache, first = sequence, None, len(chosen)
            boundaries.append(first)
            while True:
                with torch.no_grad():
                    out = self.talker(inputs_embeds=rows[None], past_key_values=cache, use_cache=True)
                cache, hidden = out.past_key_values, out.last_hidden_state[0, -1]
                raw = self.tensors["talker.codec_head.weight"] @ hidden
                processed = self._processed(
                    raw, [codes[0] for codes in said[first if restarts else -PENALTY_FRAMES :]], penalty
                )
                # before the last chunk at least count + 1 samples come before the end, and the
                # last of them is thrown away
                if count is not None or len(chosen) < least:
                    forbidden += [len(chosen)] * (int(processed.argmax()) == end)
                    processed[end] = -torch.inf
                code0 = int(processed.argmax())
                if count is not None and len(chosen) == first + count:
                    break
                if len(chosen) == frames or code0 == end or follow is not None and len(chosen) == len(follow):
                    ended = len(chosen) < frames and code0 == end
                    return Speech(
                        np.array(chosen), np.array(margins), np.array(logits), boundaries, forbidden, ended
                    )
                codes, frame_margins = self._residuals(
                    hidden.numpy(), code0, None if follow is None else follow[len(chosen)]
                )
                chosen.append(codes)
                margins.append([margin(processed.numpy()), *frame_margins])
                logits.append(raw.numpy())
                said.append(codes if follow is None else follow[len(said)].tolist())
                rows = self._frame(said[-1])[None]
                sequence = torch.cat([sequence, rows])
        raise AssertionError("the last part has no number of frames")

    def _processed(self, logits: torch.Tensor, history: Sequence[int], penalty: float) -> torch.Tensor:
        """Logits after the repetition penalty and the suppression of everything that is
        neither a code nor the end.
        """
        y = logits.clone()
        for code in set(history):
            y[code] = y[code] / penalty if y[code] > 0 else y[code] * penalty
        end, codes = (
            self.ids["codec_eos_token_id"],
            self.raw["talker_config"]["code_predictor_config"]["vocab_size"],
        )
        y[[code for code in range(codes, len(y)) if code != end]] = -torch.inf
        return y

    def _residuals(
        self, hidden: np.ndarray, code0: int, follow: np.ndarray | None
    ) -> tuple[list[int], list[float]]:
        """The frame that begins with `code0`, and the margins of its residual codes.

        `follow`: see `speak`; all rows are then known at once.
        """
        groups = self.raw["talker_config"]["num_code_groups"]
        if follow is not None:
            logits = self._predict(hidden, follow[: groups - 1].tolist())
        else:
            said, logits = [code0], []
            while len(said) < groups:
                logits.append(self._predict(hidden, said)[-1])
                said.append(int(logits[-1].argmax()))
        return [code0, *(int(scores.argmax()) for scores in logits)], [margin(scores) for scores in logits]

    def _predict(self, hidden: np.ndarray, codes: Sequence[int]) -> list[np.ndarray]:
        """Logits of the code after each of `codes`: float64, whole sequence, no cache."""
        assert self.config.talker is not None
        predictor, prefix = self.config.talker.predictor, "talker.code_predictor"
        tables = [
            self.tensors["talker.model.codec_embedding.weight"].numpy(),
            *(
                self.arrays[f"{prefix}.model.codec_embedding.{group}.weight"]
                for group in range(len(codes) - 1)
            ),
        ]
        x = np.stack(
            [
                hidden.astype(np.float64),
                *(table[code].astype(np.float64) for table, code in zip(tables, codes, strict=True)),
            ]
        )
        if f"{prefix}.model.talker_projection.weight" in self.arrays:
            x = (
                x @ self.arrays[f"{prefix}.model.talker_projection.weight"].astype(np.float64).T
                + self.arrays[f"{prefix}.model.talker_projection.bias"]
            )
        for layer in range(predictor.num_hidden_layers):
            x = decoder_layer(
                x,
                self.arrays,
                f"{prefix}.model.layers.{layer}",
                predictor,
                np.arange(len(x))[None].repeat(3, 0),
            )
        x = zero_centred_norm(x, self.arrays[f"{prefix}.model.norm.weight"], predictor.rms_norm_eps)
        return [self.arrays[f"{prefix}.lm_head.{step}.weight"] @ x[step + 1] for step in range(len(codes))]

    def _text(self, *ids: int) -> list[torch.Tensor]:
        return [self.tensors["talker.model.embed_tokens.weight"][index] for index in ids]

    def _codec(self, *ids: int) -> list[torch.Tensor]:
        return [self.tensors["talker.model.codec_embedding.weight"][index] for index in ids]

    def _frame(self, codes: Sequence[int] | np.ndarray) -> torch.Tensor:
        row = self.tensors["talker.model.codec_embedding.weight"][int(codes[0])].clone()
        for group, code in enumerate(codes[1:]):
            row += self.tensors[f"talker.code_predictor.model.codec_embedding.{group}.weight"][int(code)]
        return row

    def _user_turns(self, token_ids: list[int]) -> list[list[tuple[int, int]]]:
        """(place, token) of each user turn."""
        turns: list[list[tuple[int, int]]] = []
        for place, token in enumerate(token_ids):
            if token == self.ids["im_start_token_id"]:
                turns.append([])
            turns[-1].append((place, token))
        return [turn for turn in turns if len(turn) > 1 and turn[1][1] == self.ids["user_token_id"]]

    def _backbone(self, kind: Any, config: dict[str, Any], prefixes: dict[str, str]) -> Any:
        """An HF model with the checkpoint's tensors; every parameter must be found."""
        model = kind(
            Qwen3_5MoeTextConfig(**{name: value for name, value in config.items() if name != "model_type"})
        )
        model.set_attn_implementation("eager")
        state = {}
        for name in model.state_dict():
            own = next(own for own in prefixes if name.startswith(own))
            state[name] = self._tensor(prefixes[own] + name.removeprefix(own), config)
        model.load_state_dict(state)
        return model.eval().requires_grad_(False)

    def _tensor(self, name: str, config: dict[str, Any]) -> torch.Tensor:
        """The tensor that HF calls `name`, from the checkpoint's layout:
        experts one by one, Gated DeltaNet projections fused a key head.
        """
        if name in self.tensors:
            return self.tensors[name]
        if name.endswith(".experts.gate_up_proj"):
            one = [
                [
                    self.tensors[f"{name.removesuffix('.gate_up_proj')}.{expert}.{part}_proj.weight"]
                    for part in ("gate", "up")
                ]
                for expert in range(config["num_experts"])
            ]
            return torch.stack([torch.cat(parts) for parts in one])
        if name.endswith(".experts.down_proj"):
            return torch.stack(
                [
                    self.tensors[f"{name.removesuffix('.down_proj')}.{expert}.down_proj.weight"]
                    for expert in range(config["num_experts"])
                ]
            )
        prefix, part = name.removesuffix(".weight").split("in_proj_")
        heads, key_dim = config["linear_num_key_heads"], config["linear_key_head_dim"]
        group = config["linear_num_value_heads"] // heads
        width = group * config["linear_value_head_dim"]
        fused, sizes = (
            ("qkvz", [key_dim, key_dim, width, width]) if part in ("qkv", "z") else ("ba", [group, group])
        )
        stored = self.tensors[f"{prefix}in_proj_{fused}.weight"]
        pieces = stored.view(heads, -1, stored.shape[1]).split(sizes, dim=1)
        return torch.cat([pieces[fused.index(letter)].flatten(0, 1) for letter in part])


def margin(scores: np.ndarray) -> float:
    """How far the best score lies above the next."""
    best = np.sort(scores)[-2:]
    return float(best[1] - best[0])
