"""Weight sources of Code2Wav, for every published naming. The checkpoint's tensor names tell the naming."""

from __future__ import annotations

import numpy as np

from ...config import Code2WavConfig
from ...layers.streaming_conv import repeated_bias, transposed_convolution_weight, upsampling_weight
from ...stage import TensorSource, WeightSource, plain, transposed
from .tensors import (
    DILATIONS,
    FUSED_LAYER,
    NESTED_DECODER,
    PLAIN_DECODER,
    PREFIX,
    SPLIT_LAYER,
    latent_dim,
    quantizer_groups,
    tensor_shapes,
)

LEAST_USAGE = np.float32(1e-5)
"""The smallest divisor of a codebook entry; smaller usage counts are raised to it (MimiEuclideanCodebook)."""
PLAIN_CODEBOOKS = ("embed", "embedding")
"""Tensor names of codebooks that are stored as they are used."""


def code2wav_weights(config: Code2WavConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    """The source of every Code2Wav parameter. Raises AntiphonError if a shape contradicts `config`."""
    sources = {"norm": plain(f"{PREFIX}pre_transformer.norm.weight")}
    if config.codebook_dim:
        for name, shape in tensor_shapes(config).items():
            if checkpoint.has(name):
                checkpoint.expect_shape(name, shape)
        sources |= _split_front(config, checkpoint)
    else:
        sources["code_embedding"] = plain(f"{PREFIX}code_embedding.weight")
    return (
        sources
        | _transformer(config, checkpoint)
        | _upsampling(config, checkpoint)
        | _decoder(config, checkpoint)
    )


def _split_front(config: Code2WavConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    """Weight sources of a split quantiser: the code embedding and `pre_conv`.

    The embedding is each codebook times its group's output projection. `pre_conv` includes the transformer's
    input projection if there is one.
    """
    layers = [
        f"{PREFIX}{group}.vq.layers.{index}._codebook"
        for group, count in quantizer_groups(config)
        for index in range(count)
    ]
    kind = next((kind for kind in PLAIN_CODEBOOKS if checkpoint.has(f"{layers[0]}.{kind}")), "")
    parts = (kind,) if kind else ("embedding_sum", "cluster_usage")
    projections = tuple(f"{PREFIX}{group}.output_proj.weight" for group, _ in quantizer_groups(config))

    def embedding(semantic: np.ndarray, acoustic: np.ndarray, *stored: np.ndarray) -> np.ndarray:
        table = np.empty((config.num_quantizers, config.codebook_size, config.quantizer_dim), np.float32)
        for index in range(config.num_quantizers):
            codebook = (
                stored[index]
                if kind
                else stored[2 * index] / np.maximum(stored[2 * index + 1], LEAST_USAGE)[:, None]
            )
            projection = semantic if index < config.num_semantic_quantizers else acoustic
            table[index] = codebook.astype(np.float64) @ projection[:, :, 0].T.astype(np.float64)
        return table.reshape(-1, config.quantizer_dim)

    stored = tuple(f"{layer}.{part}" for layer in layers for part in parts)
    sources = {"code_embedding": WeightSource((*projections, *stored), embedding)}
    weight, bias = f"{PREFIX}pre_conv.conv.weight", f"{PREFIX}pre_conv.conv.bias"
    if not _projects(config, checkpoint, "input_proj"):
        return sources | {"pre_conv.weight": plain(weight), "pre_conv.bias": plain(bias)}
    outer, outer_bias = (f"{PREFIX}pre_transformer.input_proj.{part}" for part in ("weight", "bias"))

    def folded(after: np.ndarray, before: np.ndarray) -> np.ndarray:
        return np.tensordot(after.astype(np.float64), before.astype(np.float64), axes=1).astype(np.float32)

    return sources | {
        "pre_conv.weight": WeightSource((outer, weight), folded),
        "pre_conv.bias": WeightSource(
            (outer, bias, outer_bias), lambda after, before, added: folded(after, before) + added
        ),
    }


def _projects(config: Code2WavConfig, checkpoint: TensorSource, name: str) -> bool:
    """Whether the transformer has the projection `name`, which is optional if its width is latent_dim."""
    return config.hidden_size != latent_dim(config) or checkpoint.has(
        f"{PREFIX}pre_transformer.{name}.weight"
    )


def _transformer(config: Code2WavConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    root = f"{PREFIX}pre_transformer.layers"
    names = FUSED_LAYER if checkpoint.has(f"{root}.0.{FUSED_LAYER.output}.weight") else SPLIT_LAYER
    sources = {}
    for index in range(config.num_hidden_layers):
        name, stored = f"layers.{index}", f"{root}.{index}"
        sources[f"{name}.attention_norm"] = plain(f"{stored}.{names.attention_norm}.weight")
        sources[f"{name}.feed_forward_norm"] = plain(f"{stored}.{names.feed_forward_norm}.weight")
        sources[f"{name}.query_key_value"] = _side_by_side(
            *(f"{stored}.{part}.weight" for part in names.projections)
        )
        sources[f"{name}.attention_output"] = _scaled(
            f"{stored}.{names.output}.weight", f"{stored}.{names.attention_scale}"
        )
        sources[f"{name}.gate_up"] = _side_by_side(
            f"{stored}.{names.gate}.weight", f"{stored}.{names.up}.weight"
        )
        sources[f"{name}.down"] = _scaled(
            f"{stored}.{names.down}.weight", f"{stored}.{names.feed_forward_scale}"
        )
        if config.attention_bias:
            biases = tuple(f"{stored}.{part}.bias" for part in names.projections)
            sources[f"{name}.query_key_value_bias"] = WeightSource(
                biases, lambda *parts: np.concatenate(parts)
            )
            sources[f"{name}.attention_output_bias"] = _scaled(
                f"{stored}.{names.output}.bias", f"{stored}.{names.attention_scale}"
            )
    return sources


def _upsampling(config: Code2WavConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    sources = {}
    for index, ratio in enumerate(config.upsampling_ratios):
        name, stored = f"upsampling.{index}", f"{PREFIX}upsample.{index}"
        sources[f"{name}.upsample_weight"] = upsampling_weight(f"{stored}.0.conv.weight")
        sources[f"{name}.upsample_bias"] = repeated_bias(f"{stored}.0.conv.bias", ratio)
        sources |= _convolution(f"{name}.depthwise", f"{stored}.1.dwconv")
        sources[f"{name}.norm_weight"], sources[f"{name}.norm_bias"] = (
            plain(f"{stored}.1.norm.weight"),
            plain(f"{stored}.1.norm.bias"),
        )
        sources[f"{name}.expand"], sources[f"{name}.expand_bias"] = (
            transposed(f"{stored}.1.pwconv1.weight"),
            plain(f"{stored}.1.pwconv1.bias"),
        )
        sources[f"{name}.contract"] = _scaled(f"{stored}.1.pwconv2.weight", f"{stored}.1.gamma")
        sources[f"{name}.contract_bias"] = _scaled(f"{stored}.1.pwconv2.bias", f"{stored}.1.gamma")
    return sources | (
        _projected_upsampling(config.upsampling_ratios[0])
        if config.codebook_dim and _projects(config, checkpoint, "output_proj")
        else {}
    )


def _projected_upsampling(ratio: int) -> dict[str, WeightSource]:
    """Weight sources of the first upsampling, merged with the transformer's output projection before it."""
    inner, inner_bias = (f"{PREFIX}pre_transformer.output_proj.{part}" for part in ("weight", "bias"))
    outer, outer_bias = (f"{PREFIX}upsample.0.0.conv.{part}" for part in ("weight", "bias"))
    columns = upsampling_weight(outer).assemble

    def weight(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return (before.T.astype(np.float64) @ columns(after)).astype(np.float32)

    def bias(before: np.ndarray, after: np.ndarray, added: np.ndarray) -> np.ndarray:
        return (before.astype(np.float64) @ columns(after) + np.tile(added, ratio)).astype(np.float32)

    return {
        "upsampling.0.upsample_weight": WeightSource((inner, outer), weight),
        "upsampling.0.upsample_bias": WeightSource((inner_bias, outer, outer_bias), bias),
    }


def _decoder(config: Code2WavConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    names = NESTED_DECODER if checkpoint.has(f"{PREFIX}{NESTED_DECODER.root}0.conv.weight") else PLAIN_DECODER
    root, last = PREFIX + names.root, len(config.upsample_rates) + 1
    sources = _convolution("decoder_input", f"{root}0")
    for index, stride in enumerate(config.upsample_rates):
        name, stored = f"decoder.{index}", f"{root}{index + 1}.block"
        sources |= _snake(f"{name}.activation", f"{stored}.0")
        sources[f"{name}.transposed.weight"] = transposed_convolution_weight(f"{stored}.1.conv.weight")
        sources[f"{name}.transposed.bias"] = repeated_bias(f"{stored}.1.conv.bias", stride)
        for unit in range(len(DILATIONS)):
            unit_name = f"{name}.units.{unit}"
            first, dilated, second, pointwise = (f"{stored}.{unit + 2}.{part}" for part in names.unit)
            sources |= _snake(f"{unit_name}.first_activation", first) | _convolution(
                f"{unit_name}.dilated", dilated
            )
            sources |= _snake(f"{unit_name}.second_activation", second)
            sources[f"{unit_name}.pointwise"] = plain(f"{pointwise}.conv.weight")
            sources[f"{unit_name}.pointwise_bias"] = plain(f"{pointwise}.conv.bias")
    return (
        sources | _snake("output_activation", f"{root}{last}") | _convolution("output", f"{root}{last + 1}")
    )


def _convolution(name: str, stored: str) -> dict[str, WeightSource]:
    return {f"{name}.weight": plain(f"{stored}.conv.weight"), f"{name}.bias": plain(f"{stored}.conv.bias")}


def _snake(name: str, stored: str) -> dict[str, WeightSource]:
    return {
        f"{name}.frequency": WeightSource((f"{stored}.alpha",), lambda alpha: np.exp(alpha)[:, None]),
        f"{name}.magnitude": WeightSource(
            (f"{stored}.beta",), lambda beta: 1 / (np.exp(beta) + np.float32(1e-9))[:, None]
        ),
    }


def _side_by_side(*tensors: str) -> WeightSource:
    """Several Linear weights [out, in] joined to one matrix [in, sum of out]."""
    return WeightSource(tensors, lambda *weights: np.ascontiguousarray(np.concatenate(weights).T))


def _scaled(tensor: str, scale: str) -> WeightSource:
    """A Linear weight [out, in] as [in, out], or a bias [out], multiplied by the layer scale [out]."""
    return WeightSource((tensor, scale), lambda stored, factor: np.ascontiguousarray(stored.T * factor))
