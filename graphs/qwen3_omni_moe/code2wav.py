"""Code2Wav of Qwen3-Omni as a streaming stage: codec frames in, waveform out, exact at any packet schedule."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...runtime.bundle import StateSpec, TensorSpec
from ...runtime.errors import AntiphonError
from ..config import Code2WavConfig, OmniConfig
from ..stage import Stage, WeightSource, plain, transposed
from ..streaming_conv import (
    CausalConvolution,
    StateTape,
    TransposedConvolution,
    affine,
    delay_after,
    repeated_bias,
    started,
    transposed_convolution_weight,
    upsample,
    upsampling_weight,
)

SAMPLE_RATE = 24_000
"""Of the published models; their configurations do not state it."""

KERNEL = 7
DILATIONS = (1, 3, 9)
"""Fixed in the reference classes, not in the configuration."""


def code2wav_stage(config: OmniConfig) -> Stage:
    """The Code2Wav stage of `config`.

    codes int64 [batch, frames, codebooks], past_length int64 [batch] (frames decoded before this call) -> audio float32 [batch, samples] with
    samples = samples_per_frame * frames, in [-1, 1]. The output runs `lead_samples` late: a stream's first lead_samples are zeros to drop, the
    rest is the unstreamed waveform. Raises AntiphonError when the checkpoint has no Code2Wav or its sizes do not divide.
    Source: Qwen3OmniMoeCode2Wav.
    """
    if config.code2wav is None:
        raise AntiphonError("This checkpoint has no Code2Wav (enable_audio_output is false); build it for text only or use one with speech output.")
    vocoder = config.code2wav
    _check(vocoder)
    with torch.device("meta"):
        states = Code2Wav(vocoder).states()

    def example() -> dict[str, np.ndarray]:
        codes = np.random.default_rng(0).integers(0, vocoder.codebook_size, (2, 3, vocoder.num_quantizers))
        return {"codes": codes, "past_length": np.array([0, 5])}

    return Stage(
        name="code2wav",
        make_module=lambda: Code2Wav(vocoder),
        inputs=(TensorSpec("codes", "int64", ("batch", "frames", vocoder.num_quantizers)), TensorSpec("past_length", "int64", ("batch",))),
        outputs=(TensorSpec("audio", "float32", ("batch", "samples")),),
        states=states,
        example=example,
        weights=lambda checkpoint: _weights(vocoder),
        constants={
            "sample_rate": SAMPLE_RATE,
            "samples_per_frame": vocoder.samples_per_frame,
            "lead_samples": delay_after(vocoder.upsample_rates),
            "num_quantizers": vocoder.num_quantizers,
            "codebook_size": vocoder.codebook_size,
            "sliding_window": vocoder.sliding_window,
        },
    )


class Code2Wav(nn.Module):
    """The whole decoder; inputs, outputs and states as in `code2wav_stage`."""

    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        self.config = config
        hidden, rates = config.hidden_size, config.upsample_rates
        self.code_embedding = nn.Parameter(torch.empty(config.num_quantizers * config.codebook_size, hidden))
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.Parameter(torch.empty(hidden))
        self.upsampling = nn.ModuleList(UpsamplingBlock(hidden, ratio) for ratio in config.upsampling_ratios)
        self.decoder_input = CausalConvolution(hidden, config.decoder_dim, KERNEL)
        self.decoder = nn.ModuleList(DecoderBlock(config.decoder_dim >> index, config.decoder_dim >> (index + 1), stride) for index, stride in enumerate(rates))
        self.output_activation = SnakeBeta(config.decoder_dim >> len(rates))
        self.output = CausalConvolution(config.decoder_dim >> len(rates), 1, KERNEL)

    def states(self) -> tuple[StateSpec, ...]:
        """The states in the order in which `forward` reads them."""
        specs = []
        for name, module in self.named_modules():
            if isinstance(module, TransformerLayer):
                specs += [StateSpec(f"{name}.{kind}", "window", "float32", ("batch", *module.state_shape)) for kind in ("key", "value")]
            elif isinstance(module, CausalConvolution | TransposedConvolution):
                specs.append(StateSpec(name, "conv", "float32", ("batch", *module.state_shape)))
        return tuple(specs)

    def forward(self, codes: Tensor, past_length: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        config, tape, frames = self.config, StateTape(past), codes.shape[1]
        table_start = config.codebook_size * torch.arange(config.num_quantizers, device=codes.device)
        x = functional.embedding(codes + table_start, self.code_embedding).mean(2)  # [batch, frames, hidden]
        rotary = rotary_tables(frames, config, codes.device)
        visible = window_bias(past_length, frames, config.sliding_window)
        for layer in self.layers:
            x = layer(x, rotary, visible, tape)
        x = functional.rms_norm(x, (config.hidden_size,), self.norm, config.rms_norm_eps)
        rate = 1
        for block, ratio in zip(self.upsampling, config.upsampling_ratios, strict=True):
            x = block(x, tape)
            rate *= ratio
        x = self.decoder_input(x.transpose(1, 2), tape)  # from here [batch, channels, columns]
        mask = None
        for index, block in enumerate(self.decoder, start=1):
            rate *= config.upsample_rates[index - 1]
            mask = started(past_length, frames, rate, delay_after(config.upsample_rates[:index]))
            x = block(x, mask, tape)
        audio = self.output(self.output_activation(x), tape).clamp(-1.0, 1.0)
        return masked(audio, mask)[:, 0], *tape.present


class TransformerLayer(nn.Module):
    """Pre-norm layer with causal attention over the last `sliding_window` frames; x float [batch, frames, hidden] -> the same.

    Its states are the unrotated keys and values of the last sliding_window - 1 frames, float [batch, key_value_heads, sliding_window - 1, head_dim].
    Unrotated, they can be rotated by their distance from this call, so that a stream of any length keeps its float precision.
    """

    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        self.config = config
        hidden, inner = config.hidden_size, config.intermediate_size
        self.heads, self.key_value_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, _head_dim(config)
        rows, total = self.heads * self.head_dim, (self.heads + 2 * self.key_value_heads) * self.head_dim
        self.attention_norm = nn.Parameter(torch.empty(hidden))
        self.query_key_value = nn.Parameter(torch.empty(hidden, total))
        self.query_key_value_bias = nn.Parameter(torch.empty(total)) if config.attention_bias else None
        self.attention_output = nn.Parameter(torch.empty(rows, hidden))
        self.attention_output_bias = nn.Parameter(torch.empty(hidden)) if config.attention_bias else None
        self.feed_forward_norm = nn.Parameter(torch.empty(hidden))
        self.gate_up = nn.Parameter(torch.empty(hidden, 2 * inner))
        self.down = nn.Parameter(torch.empty(inner, hidden))

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """Heads, frames and channels of the key state and of the value state."""
        return self.key_value_heads, self.config.sliding_window - 1, self.head_dim

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], visible: Tensor, tape: StateTape) -> Tensor:
        normed = functional.rms_norm(x, (x.shape[2],), self.attention_norm, self.config.rms_norm_eps)
        x = x + self.attend(normed, rotary, visible, tape)
        normed = functional.rms_norm(x, (x.shape[2],), self.feed_forward_norm, self.config.rms_norm_eps)
        gate, up = (normed @ self.gate_up).chunk(2, dim=2)
        return x + (functional.silu(gate) * up) @ self.down

    def attend(self, x: Tensor, rotary: tuple[Tensor, Tensor], visible: Tensor, tape: StateTape) -> Tensor:
        batch, frames = x.shape[0], x.shape[1]
        cosine, sine = rotary  # [window - 1 + frames, head_dim / 2]
        projected = x @ self.query_key_value
        if self.query_key_value_bias is not None:
            projected = projected + self.query_key_value_bias
        projected = projected.reshape(batch, frames, -1, self.head_dim).transpose(1, 2)
        query, key, value = projected.split((self.heads, self.key_value_heads, self.key_value_heads), dim=1)
        key, value = tape.extend(key), tape.extend(value)
        context = self.config.sliding_window - 1
        query = rotate(query, cosine[context:], sine[context:]) * self.head_dim**-0.5
        key = rotate(key, cosine, sine)
        grouped = query.reshape(batch, self.key_value_heads, -1, frames, self.head_dim)  # the query heads of one key head side by side
        scores = grouped @ key[:, :, None].transpose(3, 4) + visible
        mixed = scores.softmax(4) @ value[:, :, None]
        mixed = mixed.reshape(batch, self.heads, frames, self.head_dim).transpose(1, 2).reshape(batch, frames, self.heads * self.head_dim)
        output = mixed @ self.attention_output
        return output if self.attention_output_bias is None else output + self.attention_output_bias


class UpsamplingBlock(nn.Module):
    """Multiplies the rate by `ratio`, then one ConvNeXt block; x float [batch, columns, hidden] -> [batch, ratio * columns, hidden]."""

    def __init__(self, hidden: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.upsample_weight = nn.Parameter(torch.empty(hidden, ratio * hidden))
        self.upsample_bias = nn.Parameter(torch.empty(ratio * hidden))
        self.depthwise = CausalConvolution(hidden, hidden, KERNEL, groups=hidden)
        self.norm_weight = nn.Parameter(torch.empty(hidden))
        self.norm_bias = nn.Parameter(torch.empty(hidden))
        self.expand = nn.Parameter(torch.empty(hidden, 4 * hidden))
        self.expand_bias = nn.Parameter(torch.empty(4 * hidden))
        self.contract = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.contract_bias = nn.Parameter(torch.empty(hidden))

    def forward(self, x: Tensor, tape: StateTape) -> Tensor:
        x = upsample(x, self.upsample_weight, self.upsample_bias, self.ratio)
        mixed = self.depthwise(x.transpose(1, 2), tape).transpose(1, 2)
        mixed = functional.layer_norm(mixed, (x.shape[2],), self.norm_weight, self.norm_bias, 1e-6)
        mixed = functional.gelu(affine(mixed, self.expand, self.expand_bias))
        return x + affine(mixed, self.contract, self.contract_bias)


class DecoderBlock(nn.Module):
    """Multiplies the rate by `stride`, then three dilated residual units; [batch, in, columns] -> [batch, out, stride * columns].

    `mask` is that of the output's rate; the input comes masked. Zeros stay zeros in SnakeBeta, so masking the residual stream is enough.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.activation = SnakeBeta(in_channels)
        self.transposed = TransposedConvolution(in_channels, out_channels, stride)
        self.units = nn.ModuleList(ResidualUnit(out_channels, dilation) for dilation in DILATIONS)

    def forward(self, x: Tensor, mask: Tensor | None, tape: StateTape) -> Tensor:
        x = masked(self.transposed(self.activation(x), tape), mask)
        for unit in self.units:
            x = masked(unit(x, tape), mask)
        return x


class ResidualUnit(nn.Module):
    """A dilated convolution and a pointwise one, each after SnakeBeta, added to the input; x float [batch, channels, columns] -> the same."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.first_activation = SnakeBeta(channels)
        self.dilated = CausalConvolution(channels, channels, KERNEL, dilation)
        self.second_activation = SnakeBeta(channels)
        self.pointwise = nn.Parameter(torch.empty(channels, channels, 1))
        self.pointwise_bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor, tape: StateTape) -> Tensor:
        mixed = self.second_activation(self.dilated(self.first_activation(x), tape))
        return x + functional.conv1d(mixed, self.pointwise, self.pointwise_bias)


class SnakeBeta(nn.Module):
    """x + sin(alpha x)^2 / beta, per channel; x float [batch, channels, columns] -> the same. Source: Ziyin et al. 2020, arXiv 2006.08195.

    The parameters hold alpha and 1 / beta, not their logarithms as a checkpoint does.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.empty(channels, 1))
        self.magnitude = nn.Parameter(torch.empty(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.sin(self.frequency * x)
        return x + self.magnitude * (wave * wave)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` with zeros before the stream's start; see streaming_conv.started."""
    return x if mask is None else x * mask


def rotary_tables(frames: int, config: Code2WavConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float [sliding_window - 1 + frames, head_dim / 2] each, for positions counted from the first frame of this call."""
    head_dim = _head_dim(config)
    frequency = config.rope.theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim)
    position = torch.arange(1 - config.sliding_window, frames, dtype=torch.float32, device=device)
    angle = position[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of x float [batch, heads, frames, head_dim]: channel c turns with channel c + head_dim / 2."""
    first, second = x.chunk(2, dim=3)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=3)


def window_bias(past_length: Tensor, frames: int, window: int) -> Tensor:
    """0 where a query sees a key, else minus infinity: float [batch, 1, 1, frames, window - 1 + frames].

    A query sees itself and the window - 1 frames before it, as far as the stream of its row has begun. past_length int64 [batch].
    """
    key = torch.arange(1 - window, frames, device=past_length.device)
    distance = torch.arange(frames, device=past_length.device)[:, None] - key
    near = (distance >= 0) & (distance < window)  # [frames, window - 1 + frames]
    begun = key + past_length[:, None] >= 0  # [batch, window - 1 + frames]
    visible = (near & begun[:, None])[:, None, None]
    return torch.where(visible, 0.0, -torch.inf)


def _head_dim(config: Code2WavConfig) -> int:
    return config.hidden_size // config.num_attention_heads


def _check(config: Code2WavConfig) -> None:
    def expect(condition: bool, sentence: str) -> None:
        if not condition:
            raise AntiphonError(f"code2wav_config: {sentence}; correct config.json.")

    hidden, heads, key_value_heads = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    expect(hidden % (2 * heads) == 0, f"hidden_size is {hidden}, expected a multiple of twice num_attention_heads ({heads})")
    expect(heads % key_value_heads == 0, f"num_attention_heads is {heads}, expected a multiple of num_key_value_heads ({key_value_heads})")
    expect(config.sliding_window >= 2, f"sliding_window is {config.sliding_window}, expected 2 or more")
    halvings = 2 ** len(config.upsample_rates)
    expect(config.decoder_dim % halvings == 0, f"decoder_dim is {config.decoder_dim}, expected a multiple of {halvings}, halved once per upsample rate")
    expect(bool(config.upsample_rates), "upsample_rates is empty, expected one rate per decoder block")


def _weights(config: Code2WavConfig) -> dict[str, WeightSource]:
    """Every parameter of Code2Wav from the tensors of a checkpoint, which stand under the prefix `code2wav.`."""
    sources: dict[str, WeightSource] = {"code_embedding": plain("code2wav.code_embedding.weight"), "norm": plain("code2wav.pre_transformer.norm.weight")}

    def convolution(name: str, stored: str) -> None:
        sources[f"{name}.weight"], sources[f"{name}.bias"] = plain(f"code2wav.{stored}.conv.weight"), plain(f"code2wav.{stored}.conv.bias")

    def snake(name: str, stored: str) -> None:
        sources[f"{name}.frequency"] = WeightSource((f"code2wav.{stored}.alpha",), lambda alpha: np.exp(alpha)[:, None])
        sources[f"{name}.magnitude"] = WeightSource((f"code2wav.{stored}.beta",), lambda beta: 1 / (np.exp(beta) + np.float32(1e-9))[:, None])

    for index in range(config.num_hidden_layers):
        name, stored = f"layers.{index}", f"code2wav.pre_transformer.layers.{index}"
        attention = f"{stored}.self_attn"
        sources[f"{name}.attention_norm"] = plain(f"{stored}.input_layernorm.weight")
        sources[f"{name}.feed_forward_norm"] = plain(f"{stored}.post_attention_layernorm.weight")
        sources[f"{name}.query_key_value"] = _side_by_side(*(f"{attention}.{part}_proj.weight" for part in "qkv"))
        sources[f"{name}.attention_output"] = _scaled(f"{attention}.o_proj.weight", f"{stored}.self_attn_layer_scale.scale")
        sources[f"{name}.gate_up"] = _side_by_side(f"{stored}.mlp.gate_proj.weight", f"{stored}.mlp.up_proj.weight")
        sources[f"{name}.down"] = _scaled(f"{stored}.mlp.down_proj.weight", f"{stored}.mlp_layer_scale.scale")
        if config.attention_bias:
            biases = tuple(f"{attention}.{part}_proj.bias" for part in "qkv")
            sources[f"{name}.query_key_value_bias"] = WeightSource(biases, lambda *parts: np.concatenate(parts))
            sources[f"{name}.attention_output_bias"] = _scaled(f"{attention}.o_proj.bias", f"{stored}.self_attn_layer_scale.scale")
    for index, ratio in enumerate(config.upsampling_ratios):
        name, stored = f"upsampling.{index}", f"code2wav.upsample.{index}"
        sources[f"{name}.upsample_weight"] = upsampling_weight(f"{stored}.0.conv.weight")
        sources[f"{name}.upsample_bias"] = repeated_bias(f"{stored}.0.conv.bias", ratio)
        convolution(f"{name}.depthwise", f"upsample.{index}.1.dwconv")
        sources[f"{name}.norm_weight"], sources[f"{name}.norm_bias"] = plain(f"{stored}.1.norm.weight"), plain(f"{stored}.1.norm.bias")
        sources[f"{name}.expand"], sources[f"{name}.expand_bias"] = transposed(f"{stored}.1.pwconv1.weight"), plain(f"{stored}.1.pwconv1.bias")
        sources[f"{name}.contract"] = _scaled(f"{stored}.1.pwconv2.weight", f"{stored}.1.gamma")
        sources[f"{name}.contract_bias"] = _scaled(f"{stored}.1.pwconv2.bias", f"{stored}.1.gamma")
    convolution("decoder_input", "decoder.0")
    for index, stride in enumerate(config.upsample_rates):
        name, stored = f"decoder.{index}", f"decoder.{index + 1}.block"
        snake(f"{name}.activation", f"{stored}.0")
        sources[f"{name}.transposed.weight"] = transposed_convolution_weight(f"code2wav.{stored}.1.conv.weight")
        sources[f"{name}.transposed.bias"] = repeated_bias(f"code2wav.{stored}.1.conv.bias", stride)
        for unit in range(len(DILATIONS)):
            unit_name, unit_stored = f"{name}.units.{unit}", f"{stored}.{unit + 2}"
            snake(f"{unit_name}.first_activation", f"{unit_stored}.act1")
            convolution(f"{unit_name}.dilated", f"{unit_stored}.conv1")
            snake(f"{unit_name}.second_activation", f"{unit_stored}.act2")
            sources[f"{unit_name}.pointwise"] = plain(f"code2wav.{unit_stored}.conv2.conv.weight")
            sources[f"{unit_name}.pointwise_bias"] = plain(f"code2wav.{unit_stored}.conv2.conv.bias")
    last = len(config.upsample_rates) + 1
    snake("output_activation", f"decoder.{last}")
    convolution("output", f"decoder.{last + 1}")
    return sources


def _side_by_side(*tensors: str) -> WeightSource:
    """Linear weights [out, in] as one matrix [in, sum of out], so that one product computes them all."""
    return WeightSource(tensors, lambda *weights: np.ascontiguousarray(np.concatenate(weights).T))


def _scaled(tensor: str, scale: str) -> WeightSource:
    """A Linear weight [out, in] as [in, out], or a bias [out], with the layer scale [out] of its output multiplied in."""
    return WeightSource((tensor, scale), lambda stored, factor: np.ascontiguousarray(stored.T * factor))
