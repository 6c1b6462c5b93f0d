"""Every tensor of a Qwen3-Omni checkpoint: published name, shape and how a random one is drawn.

Scales keep activations near unit variance: a product over `fan_in` inputs is drawn with std gain / sqrt(fan_in), and branches of a
residual stack share a variance budget. Names: model card of Qwen3-Omni-30B-A3B and transformers 5.23 (`qwen3_omni_moe`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..config import AudioConfig, Code2WavConfig, DecoderConfig, OmniConfig, VisionConfig

# Mean square of silu(x) * y and of gelu(x), silu(x) for unit normal inputs: what a following projection must undo.
GATED_POWER = 0.355
GELU_POWER = 0.425
BIAS = 0.05
NORM_SPREAD = 0.1
# Variance that all branches of a decoder add to that of its input: so much that the next id hangs on the whole context, and
# greedy decoding does not fall into a cycle of last ids. More, or sharper attention, brings repetition back (measured over four seeds).
BRANCH_POWER = 4.0
# Averaging over the context shrinks values; sharper scores and a larger output keep attention audible.
ATTENTION_GAIN = 1.5
QUERY_NORM = 1.5
# Logits of this std for a normalised state: wide margins between the best ids, and a softmax that is neither flat nor one peak.
HEAD_STD = 4.0


@dataclass(frozen=True)
class Draw:
    """How values are drawn: mean + std * N(0, 1), then optional adjustments."""

    std: float
    mean: float = 0.0
    zero_sum: bool = False
    """Remove the mean over everything but the output channel, so that a common offset does not pass."""

    output_axis: int = 0
    """The output channel's axis (1 in transposed convolutions)."""

    faint_rows: tuple[int, ...] = ()
    """Rows scaled by `FAINT`: ids that must hardly ever win."""

    stop_row: int = -1
    """The row scaled by `STOP` (-1: none): the id that ends a sequence, reached but seldom."""


FAINT = 0.1
STOP = 0.6


@dataclass(frozen=True)
class Tensor:
    """One tensor of the per-expert layout."""

    name: str
    shape: tuple[int, ...]
    draw: Draw = field(compare=False)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def all_tensors(config: OmniConfig, faint_tokens: tuple[int, ...] = ()) -> Iterator[Tensor]:
    """All tensors of a checkpoint of `config`, per-expert layout, in file order; `faint_tokens` are text ids that should not be generated."""
    thinker = config.thinker
    yield from _decoder("thinker.model", thinker.text)
    vocabulary, width = thinker.text.vocab_size, thinker.text.hidden_size
    if thinker.text.tie_word_embeddings:
        yield _head("thinker.model.embed_tokens.weight", vocabulary, width, faint_tokens, config.im_end_token_id)
    else:
        yield _embedding("thinker.model.embed_tokens.weight", vocabulary, width, 1.0)
        yield _head("thinker.lm_head.weight", vocabulary, width, faint_tokens, config.im_end_token_id)
    yield from _audio("thinker.audio_tower", thinker.audio)
    yield from _vision("thinker.visual", thinker.vision)
    if config.talker is None or config.code2wav is None:
        return
    talker, codebook = config.talker, config.code2wav.codebook_size
    hidden = talker.text.hidden_size
    yield from _decoder("talker.model", talker.text)
    yield _embedding("talker.model.codec_embedding.weight", talker.text.vocab_size, hidden, 0.7)
    special = tuple(row for row in range(codebook, talker.text.vocab_size) if row != talker.codec_eos_token_id)
    yield _head("talker.codec_head.weight", talker.text.vocab_size, hidden, special, talker.codec_eos_token_id)
    for name in ("text_projection", "hidden_projection"):
        inner = talker.text.intermediate_size
        yield from _linear(f"talker.{name}.linear_fc1", inner, talker.thinker_hidden_size, bias=True)
        yield from _linear(f"talker.{name}.linear_fc2", hidden, inner, bias=True, gain=1 / math.sqrt(GATED_POWER))
    predictor = talker.predictor
    yield from _decoder("talker.code_predictor.model", predictor)
    for group in range(talker.num_code_groups - 1):
        # Fifteen of these are added into one Talker row: together about as strong as the text.
        yield _embedding(f"talker.code_predictor.model.codec_embedding.{group}.weight", predictor.vocab_size, predictor.hidden_size, 0.35)
    for group in range(talker.num_code_groups - 1):
        yield _head(f"talker.code_predictor.lm_head.{group}.weight", predictor.vocab_size, predictor.hidden_size)
    yield from _code2wav("code2wav", config.code2wav)


def _linear(prefix: str, rows: int, columns: int, bias: bool = False, gain: float = 1.0) -> Iterator[Tensor]:
    yield Tensor(f"{prefix}.weight", (rows, columns), Draw(gain / math.sqrt(columns)))
    if bias:
        yield Tensor(f"{prefix}.bias", (rows,), Draw(BIAS))


def _norm(prefix: str, size: int, bias: bool = False, mean: float = 1.0) -> Iterator[Tensor]:
    yield Tensor(f"{prefix}.weight", (size,), Draw(NORM_SPREAD, mean=mean))
    if bias:
        yield Tensor(f"{prefix}.bias", (size,), Draw(BIAS))


def _embedding(name: str, rows: int, columns: int, std: float) -> Tensor:
    return Tensor(name, (rows, columns), Draw(std))


def _head(name: str, rows: int, columns: int, faint_rows: tuple[int, ...] = (), stop_row: int = -1) -> Tensor:
    return Tensor(name, (rows, columns), Draw(HEAD_STD / math.sqrt(columns), faint_rows=faint_rows, stop_row=stop_row))


def _decoder(prefix: str, text: DecoderConfig) -> Iterator[Tensor]:
    hidden, queries, keys = text.hidden_size, text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    branch = math.sqrt(BRANCH_POWER / (2 * text.num_hidden_layers))
    for layer in range(text.num_hidden_layers):
        name = f"{prefix}.layers.{layer}"
        yield from _norm(f"{name}.input_layernorm", hidden)
        for projection, rows in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
            yield from _linear(f"{name}.self_attn.{projection}", rows, hidden, bias=text.attention_bias)
        yield from _linear(f"{name}.self_attn.o_proj", hidden, queries, bias=text.attention_bias, gain=ATTENTION_GAIN * branch)
        yield from _norm(f"{name}.self_attn.q_norm", text.head_dim, mean=QUERY_NORM)
        yield from _norm(f"{name}.self_attn.k_norm", text.head_dim)
        yield from _norm(f"{name}.post_attention_layernorm", hidden)
        if text.is_sparse(layer):
            # Router logits of std 3: decisive for a token, balanced over tokens.
            yield from _linear(f"{name}.mlp.gate", text.num_experts, hidden, gain=3.0)
            for expert in range(text.num_experts):
                yield from _feed_forward(f"{name}.mlp.experts.{expert}", hidden, text.moe_intermediate_size, branch)
            if text.shared_expert_intermediate_size:
                yield from _feed_forward(f"{name}.mlp.shared_expert", hidden, text.shared_expert_intermediate_size, branch)
                yield from _linear(f"{name}.mlp.shared_expert_gate", 1, hidden)
        else:
            yield from _feed_forward(f"{name}.mlp", hidden, text.intermediate_size, branch)
    yield from _norm(f"{prefix}.norm", hidden)


def _feed_forward(prefix: str, hidden: int, width: int, branch: float) -> Iterator[Tensor]:
    yield from _linear(f"{prefix}.gate_proj", width, hidden)
    yield from _linear(f"{prefix}.up_proj", width, hidden)
    yield from _linear(f"{prefix}.down_proj", hidden, width, gain=branch / math.sqrt(GATED_POWER))


def _audio(prefix: str, audio: AudioConfig) -> Iterator[Tensor]:
    width, branch = audio.d_model, 1 / math.sqrt(2 * audio.encoder_layers)
    channels, inputs, bins = audio.downsample_hidden_size, 1, audio.num_mel_bins
    for index in (1, 2, 3):
        yield Tensor(f"{prefix}.conv2d{index}.weight", (channels, inputs, 3, 3), Draw(1.5 / math.sqrt(9 * inputs)))
        yield Tensor(f"{prefix}.conv2d{index}.bias", (channels,), Draw(BIAS))
        inputs, bins = channels, (bins - 1) // 2 + 1
    yield from _linear(f"{prefix}.conv_out", width, channels * bins, gain=1 / math.sqrt(GELU_POWER))
    for layer in range(audio.encoder_layers):
        name = f"{prefix}.layers.{layer}"
        yield from _norm(f"{name}.self_attn_layer_norm", width, bias=True)
        for projection in ("q_proj", "k_proj", "v_proj"):
            yield from _linear(f"{name}.self_attn.{projection}", width, width, bias=True)
        yield from _linear(f"{name}.self_attn.out_proj", width, width, bias=True, gain=2 * branch)
        yield from _norm(f"{name}.final_layer_norm", width, bias=True)
        yield from _linear(f"{name}.fc1", audio.encoder_ffn_dim, width, bias=True)
        yield from _linear(f"{name}.fc2", width, audio.encoder_ffn_dim, bias=True, gain=branch / math.sqrt(GELU_POWER))
    yield from _norm(f"{prefix}.ln_post", width, bias=True)
    yield from _linear(f"{prefix}.proj1", width, width, bias=True)
    yield from _linear(f"{prefix}.proj2", audio.output_dim, width, bias=True, gain=1 / math.sqrt(GELU_POWER))


def _vision(prefix: str, vision: VisionConfig) -> Iterator[Tensor]:
    width, branch = vision.hidden_size, 1 / math.sqrt(2 * vision.depth)
    patch = (vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    # Neighbouring pixels are alike, so a patch carries far fewer independent inputs than values.
    yield Tensor(f"{prefix}.patch_embed.proj.weight", (width, *patch), Draw(2.0 / math.sqrt(math.prod(patch))))
    yield Tensor(f"{prefix}.patch_embed.proj.bias", (width,), Draw(BIAS))
    yield _embedding(f"{prefix}.pos_embed.weight", vision.num_position_embeddings, width, 0.3)
    for layer in range(vision.depth):
        name = f"{prefix}.blocks.{layer}"
        yield from _norm(f"{name}.norm1", width, bias=True)
        yield from _linear(f"{name}.attn.qkv", 3 * width, width, bias=True)
        yield from _linear(f"{name}.attn.proj", width, width, bias=True, gain=2 * branch)
        yield from _norm(f"{name}.norm2", width, bias=True)
        yield from _linear(f"{name}.mlp.linear_fc1", vision.intermediate_size, width, bias=True)
        yield from _linear(f"{name}.mlp.linear_fc2", width, vision.intermediate_size, bias=True, gain=branch / math.sqrt(GELU_POWER))
    merged = width * vision.spatial_merge_size**2
    yield from _merger(f"{prefix}.merger", width, merged, vision.out_hidden_size, 1.0)
    for index in range(len(vision.deepstack_visual_indexes)):
        yield from _merger(f"{prefix}.merger_list.{index}", merged, merged, vision.out_hidden_size, 0.5)


def _merger(prefix: str, normed: int, merged: int, outputs: int, gain: float) -> Iterator[Tensor]:
    yield from _norm(f"{prefix}.ln_q", normed, bias=True)
    yield from _linear(f"{prefix}.mlp.0", merged, merged, bias=True)
    yield from _linear(f"{prefix}.mlp.2", outputs, merged, bias=True, gain=gain / math.sqrt(GELU_POWER))


def _code2wav(prefix: str, wave: Code2WavConfig) -> Iterator[Tensor]:
    hidden, width = wave.hidden_size, wave.decoder_dim
    # The mean of num_quantizers rows enters the transformer: this std makes that mean a unit vector field.
    yield _embedding(f"{prefix}.code_embedding.weight", wave.codebook_size * wave.num_quantizers, hidden, math.sqrt(wave.num_quantizers))
    head_dim = hidden // wave.num_attention_heads
    for layer in range(wave.num_hidden_layers):
        name = f"{prefix}.pre_transformer.layers.{layer}"
        yield from _norm(f"{name}.input_layernorm", hidden)
        for projection, heads in (("q_proj", wave.num_attention_heads), ("k_proj", wave.num_key_value_heads), ("v_proj", wave.num_key_value_heads)):
            yield from _linear(f"{name}.self_attn.{projection}", heads * head_dim, hidden, bias=wave.attention_bias)
        yield from _linear(f"{name}.self_attn.o_proj", hidden, wave.num_attention_heads * head_dim, bias=wave.attention_bias)
        yield from _norm(f"{name}.post_attention_layernorm", hidden)
        yield from _feed_forward(f"{name}.mlp", hidden, wave.intermediate_size, 1.0)
        for scale in ("self_attn_layer_scale", "mlp_layer_scale"):
            yield Tensor(f"{name}.{scale}.scale", (hidden,), Draw(0.002, mean=0.01))
    yield from _norm(f"{prefix}.pre_transformer.norm", hidden)
    for index, ratio in enumerate(wave.upsampling_ratios):
        name = f"{prefix}.upsample.{index}"
        yield from _convolution(f"{name}.0.conv", (hidden, hidden, ratio), hidden, output_axis=1)
        yield from _convolution(f"{name}.1.dwconv.conv", (hidden, 1, 7), 7, zero_sum=False)
        yield from _norm(f"{name}.1.norm", hidden, bias=True)
        yield from _linear(f"{name}.1.pwconv1", 4 * hidden, hidden, bias=True)
        yield from _linear(f"{name}.1.pwconv2", hidden, 4 * hidden, bias=True, gain=1 / math.sqrt(GELU_POWER))
        yield Tensor(f"{name}.1.gamma", (hidden,), Draw(0.05, mean=0.3))
    yield from _convolution(f"{prefix}.decoder.0.conv", (width, hidden, 7), 7 * hidden)
    for index, rate in enumerate(wave.upsample_rates):
        name, narrow = f"{prefix}.decoder.{index + 1}.block", width // 2
        yield from _snake(f"{name}.0", width)
        # Kernel 2 * rate at stride rate: two taps meet in every sample.
        yield from _convolution(f"{name}.1.conv", (width, narrow, 2 * rate), 2 * width, output_axis=1)
        for unit in (2, 3, 4):
            yield from _snake(f"{name}.{unit}.act1", narrow)
            yield from _convolution(f"{name}.{unit}.conv1.conv", (narrow, narrow, 7), 7 * narrow)
            yield from _snake(f"{name}.{unit}.act2", narrow)
            yield from _convolution(f"{name}.{unit}.conv2.conv", (narrow, narrow, 1), narrow, gain=0.4)
        width = narrow
    last = len(wave.upsample_rates) + 1
    yield from _snake(f"{prefix}.decoder.{last}", width)
    yield Tensor(f"{prefix}.decoder.{last + 1}.conv.weight", (1, width, 7), Draw(0.035 / math.sqrt(7 * width), zero_sum=True))
    yield Tensor(f"{prefix}.decoder.{last + 1}.conv.bias", (1,), Draw(0.002))


def _convolution(prefix: str, shape: tuple[int, ...], fan_in: int, gain: float = 1.0, output_axis: int = 0, zero_sum: bool = True) -> Iterator[Tensor]:
    yield Tensor(f"{prefix}.weight", shape, Draw(gain / math.sqrt(fan_in), zero_sum=zero_sum, output_axis=output_axis))
    yield Tensor(f"{prefix}.bias", (shape[output_axis],), Draw(BIAS))


def _snake(prefix: str, channels: int) -> Iterator[Tensor]:
    yield Tensor(f"{prefix}.alpha", (channels,), Draw(0.2))
    yield Tensor(f"{prefix}.beta", (channels,), Draw(0.2, mean=0.3))
