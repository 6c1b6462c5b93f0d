"""A family that no product file knows: a Thinker of text alone, and a Talker whose voices are codec ids,
like Qwen3-Omni's, but which embeds text itself.

It reuses the shared stages and brings what is its own: how its config.json is read, its Talker, and what a
random checkpoint of it holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from antiphon.graphs.checkpoints.config_reader import ConfigReader
from antiphon.graphs.config import Code2WavConfig, OmniConfig, TalkerConfig, ThinkerConfig
from antiphon.graphs.families.base import Family, RandomCheckpoint
from antiphon.graphs.layers.decoder import Projection, decoder_layers
from antiphon.graphs.layers.decoder_specs import decoder_states, layer_weights
from antiphon.graphs.random import initializers as draws
from antiphon.graphs.random.code2wav_tensors import averaged_code2wav
from antiphon.graphs.random.config_sections import Decoder, root_ids
from antiphon.graphs.random.config_sections import decoder as decoder_section
from antiphon.graphs.random.decoder_tensors import decoder
from antiphon.graphs.random.tokenizer import TokenIds
from antiphon.graphs.stage import Stage, TensorSource, WeightSource, plain, transposed
from antiphon.graphs.stages.omni_stages import omni_stages
from antiphon.graphs.stages.talker import TalkerDecoder, talker_example, talker_inputs, talker_outputs
from antiphon.runtime.bundle.sampling import SamplingParameters
from antiphon.runtime.bundle.specs import TensorSpec
from antiphon.runtime.bundle.talker_contract import TalkerContract

NAME = "toy_omni"
CONTRACT = TalkerContract(
    layout="summed",
    embeds_text=True,
    frame_input="frame_rows",
    hidden_taps="media",
    hidden_rows=0,
    takes_style=False,
    takes_language=False,
    voice="codec_id",
)
GROUPS, CODEBOOK = 3, 24
SPEECH_IDS = {
    f"codec_{name}": CODEBOOK + row
    for row, name in enumerate(
        ("pad_id", "bos_id", "eos_token_id", "nothink_id", "think_bos_id", "think_eos_id")
    )
}
VOICES = {"ada": CODEBOOK + 6, "bob": CODEBOOK + 7}
PREDICTOR = SamplingParameters(temperature=0.7, top_k=5, top_p=0.9)


def read_toy(reader: ConfigReader) -> OmniConfig:
    """Its sections are named as Qwen3-Omni's are; the last voice is the default one."""
    thinker = reader.build(
        ThinkerConfig,
        ("thinker_config",),
        text=reader.decoder(("thinker_config", "text_config")),
        audio=None,
        vision=None,
    )
    talker = code2wav = None
    if reader.speaks("talker_config", "code2wav_config"):
        voices = reader.section("talker_config", "speaker_id")
        talker = reader.build(
            TalkerConfig,
            ("talker_config",),
            text=reader.decoder(("talker_config", "text_config")),
            speaker_id=voices,
            contract=CONTRACT,
            predictor=reader.decoder(("talker_config", "code_predictor_config")),
            default_speaker=list(voices)[-1],
        )
        code2wav = reader.build(Code2WavConfig, ("code2wav_config",), rope=reader.rope(("code2wav_config",)))
    omni: OmniConfig = reader.build(
        OmniConfig,
        (),
        family=reader.family,
        thinker=thinker,
        talker=talker,
        code2wav=code2wav,
        raw=reader.raw,
    )
    return omni


class ToyTalker(TalkerDecoder):
    """Rows of text from a table of its own; frames come as the rows that the code predictor returns."""

    def __init__(self, talker: TalkerConfig) -> None:
        super().__init__(talker.text, decoder_layers(talker.text))
        self.text_embedding = nn.Parameter(torch.empty(talker.text_vocab_size, talker.text.hidden_size))
        self.hidden_projection = Projection(talker.thinker_hidden_size, talker.text.hidden_size, bias=True)

    def forward(
        self,
        text_ids: Tensor,
        hidden: Tensor,
        hidden_index: Tensor,
        codec_ids: Tensor,
        frame_rows: Tensor,
        frame_index: Tensor,
        positions: Tensor,
        query_length: Tensor,
        past_length: Tensor,
        output_index: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        text = self.text_embedding[text_ids.clamp(min=0)]
        x = self.joined(
            text_ids, text, self.hidden_projection(hidden), hidden_index, codec_ids, frame_rows, frame_index
        )
        return self.decode(x, positions, query_length, past_length, output_index, rest)


def toy_talker_stage(config: OmniConfig) -> Stage:
    assert config.talker is not None
    talker, text = config.talker, config.talker.text
    frames = TensorSpec("frame_rows", "float32", ("frames", text.hidden_size))
    sizes = {
        "hidden_size": text.hidden_size,
        "vocab_size": text.vocab_size,
        "context": text.max_position_embeddings,
    }

    def weights(checkpoint: TensorSource) -> dict[str, WeightSource]:
        sources = {
            "text_embedding": plain("talker.model.embed_tokens.weight"),
            "codec_embedding": plain("talker.model.codec_embedding.weight"),
            "hidden_projection.weight": transposed("talker.hidden_projection.weight"),
            "hidden_projection.bias": plain("talker.hidden_projection.bias"),
            "norm.weight": plain("talker.model.norm.weight"),
            "head.weight": transposed("talker.codec_head.weight"),
        }
        for layer in range(text.num_hidden_layers):
            sources |= layer_weights(
                checkpoint, text, layer, f"talker.model.layers.{layer}", f"layers.{layer}"
            )
        return sources

    return Stage(
        "talker",
        lambda: ToyTalker(talker),
        inputs=talker_inputs(text, talker.thinker_hidden_size, frames),
        outputs=talker_outputs(text),
        states=decoder_states(text),
        example=lambda: talker_example(text, talker.thinker_hidden_size, frames),
        weights=weights,
        constants={
            **sizes,
            "thinker_hidden_size": talker.thinker_hidden_size,
            "text_vocab_size": talker.text_vocab_size,
        },
        configuration=(text, talker.predictor),
    )


def toy_configuration(_size: str, tokens: TokenIds, dtype: str) -> dict[str, Any]:
    """The `config.json` object of its one size."""
    thinker, talker, rope = Decoder(1, 32, 4, 2, 8, 48), Decoder(1, 24, 3, 1, 8, 32), {"rope_theta": 10000.0}
    codec_vocabulary = max(VOICES.values()) + 1
    return {
        "model_type": NAME,
        "dtype": dtype,
        **root_ids(tokens),
        "thinker_config": {"text_config": decoder_section(thinker, "toy", tokens.padded_size, 512) | rope},
        "talker_config": {
            **SPEECH_IDS,
            "speaker_id": VOICES,
            "num_code_groups": GROUPS,
            "accept_hidden_layer": 1,
            "thinker_hidden_size": thinker.hidden,
            "text_vocab_size": tokens.padded_size,
            "position_id_per_seconds": 1,
            "spatial_merge_size": 1,
            "text_config": decoder_section(talker, "toy", codec_vocabulary, 256) | rope,
            "code_predictor_config": decoder_section(talker, "toy", CODEBOOK, 64) | rope,
        },
        "code2wav_config": {
            "codebook_size": CODEBOOK,
            "num_quantizers": GROUPS,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "sliding_window": 8,
            "rms_norm_eps": 1e-5,
            "upsample_rates": [8],
            "upsampling_ratios": [],
            "decoder_dim": 16,
            "symmetric_trim": False,
            **rope,
        },
    }


def toy_speech(config: OmniConfig) -> Iterator[draws.Tensor]:
    talker, wave = config.talker, config.code2wav
    assert talker is not None and wave is not None
    hidden, text, predictor = talker.text.hidden_size, talker.text, talker.predictor
    yield from decoder("talker.model", text)
    yield draws.embedding("talker.model.embed_tokens.weight", talker.text_vocab_size, hidden, 1.0)
    yield draws.embedding("talker.model.codec_embedding.weight", text.vocab_size, hidden, 0.7)
    yield draws.head("talker.codec_head.weight", text.vocab_size, hidden)
    yield from draws.linear("talker.hidden_projection", hidden, talker.thinker_hidden_size, bias=True)
    yield from decoder("talker.code_predictor.model", predictor)
    for group in range(talker.num_code_groups - 1):
        yield draws.embedding(
            f"talker.code_predictor.model.codec_embedding.{group}.weight", predictor.vocab_size, hidden, 0.35
        )
        yield draws.head(f"talker.code_predictor.lm_head.{group}.weight", predictor.vocab_size, hidden)
    yield from averaged_code2wav(wave)


TOY = Family(
    name=NAME,
    read_config=read_toy,
    stages=lambda config: omni_stages(config, toy_talker_stage),
    predictor=PREDICTOR,
    random=lambda: RandomCheckpoint(
        sizes=("tiny",), configuration=toy_configuration, speech=toy_speech, model_max_length=512
    ),
    aliases=("toy_omni_next",),
)
"""The record."""
