"""Names and shapes of Code2Wav's stored tensors. Imports no torch: checkpoints are written without it.

The transformer has two published namings: that of transformers (Qwen3-Omni, Qwen3-TTS), and the fused one in
the codec folder of Qwen3.5-Omni, which NVIDIA's TensorRT-Edge-LLM 0.11 reads. The decoder has two:
`decoder.N` and `decoder.model.N`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...config import Code2WavConfig

PREFIX = "code2wav."
KERNEL = 7
"""Kernel of all convolutions except the pointwise ones and pre_conv; a constant in the reference classes."""
DILATIONS = (1, 3, 9)
"""Dilations of the residual units of a decoder block; constants in the reference classes."""


@dataclass(frozen=True)
class LayerNames:
    """Tensor names in one transformer layer, after its prefix; `projections` are query, key and value."""

    attention_norm: str
    projections: tuple[str, ...]
    output: str
    attention_scale: str
    feed_forward_norm: str
    gate: str
    up: str
    down: str
    feed_forward_scale: str


SPLIT_LAYER = LayerNames(
    "input_layernorm",
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj",
    "self_attn_layer_scale.scale",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "mlp_layer_scale.scale",
)
FUSED_LAYER = LayerNames(
    "attention_norm",
    ("attention.wqkv",),
    "attention.wo",
    "attention_layer_scale.gamma",
    "ffn_norm",
    "feed_forward.w1",
    "feed_forward.w3",
    "feed_forward.w2",
    "ffn_layer_scale.gamma",
)


@dataclass(frozen=True)
class DecoderNames:
    """Names in the decoder: the prefix of its parts, and the four parts of a residual unit.

    These parts are activation, dilated convolution, activation, pointwise convolution.
    """

    root: str
    unit: tuple[str, str, str, str]


PLAIN_DECODER = DecoderNames("decoder.", ("act1", "conv1", "act2", "conv2"))
NESTED_DECODER = DecoderNames("decoder.model.", ("block.0", "block.1", "block.2", "block.3"))


def head_dim(config: Code2WavConfig) -> int:
    """Size of one attention head."""
    return config.head_dim or config.hidden_size // config.num_attention_heads


def latent_dim(config: Code2WavConfig) -> int:
    """Channels between the transformer and the decoder."""
    return config.latent_dim or config.hidden_size


def quantizer_groups(config: Code2WavConfig) -> tuple[tuple[str, int], ...]:
    """Name and number of codebooks of the two groups of a split quantiser, in the order of the codes."""
    semantic = config.num_semantic_quantizers
    return ("quantizer.rvq_first", semantic), ("quantizer.rvq_rest", config.num_quantizers - semantic)


def tensor_shapes(config: Code2WavConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors that Code2Wav reads from a codec folder.

    Names have the prefix `code2wav.` instead of `generator.`.
    A codebook is the quotient of `embedding_sum` [bins, dim] and `cluster_usage` [bins]. A `gamma` is a layer
    scale. `alpha` and `beta` are the logarithms of SnakeBeta's parameters. `input_proj` of the quantiser is
    not listed: only an encoder needs it.
    """
    shapes = {
        name: shape
        for part in (_quantizer(config), _transformer(config), _upsampling(config), _decoder(config))
        for name, shape in part.items()
    }
    return {PREFIX + name: shape for name, shape in shapes.items()}


def _quantizer(config: Code2WavConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for group, count in quantizer_groups(config):
        for index in range(count):
            shapes[f"{group}.vq.layers.{index}._codebook.embedding_sum"] = (
                config.codebook_size,
                config.codebook_dim,
            )
            shapes[f"{group}.vq.layers.{index}._codebook.cluster_usage"] = (config.codebook_size,)
        shapes[f"{group}.output_proj.weight"] = (config.quantizer_dim, config.codebook_dim, 1)
    return shapes | _affine(
        "pre_conv.conv", (latent_dim(config), config.quantizer_dim, config.pre_conv_kernel)
    )


def _transformer(config: Code2WavConfig) -> dict[str, tuple[int, ...]]:
    hidden, inner, latent, root, names = (
        config.hidden_size,
        config.intermediate_size,
        latent_dim(config),
        "pre_transformer",
        FUSED_LAYER,
    )
    rows = config.num_attention_heads * head_dim(config)
    shapes = _affine(f"{root}.input_proj", (hidden, latent)) if hidden != latent else {}
    for index in range(config.num_hidden_layers):
        layer = f"{root}.layers.{index}"
        shapes |= {
            f"{layer}.{names.attention_norm}.weight": (hidden,),
            f"{layer}.{names.projections[0]}.weight": (
                rows + 2 * config.num_key_value_heads * head_dim(config),
                hidden,
            ),
            f"{layer}.{names.output}.weight": (hidden, rows),
            f"{layer}.{names.attention_scale}": (hidden,),
            f"{layer}.{names.feed_forward_norm}.weight": (hidden,),
            f"{layer}.{names.gate}.weight": (inner, hidden),
            f"{layer}.{names.up}.weight": (inner, hidden),
            f"{layer}.{names.down}.weight": (hidden, inner),
            f"{layer}.{names.feed_forward_scale}": (hidden,),
        }
    shapes[f"{root}.norm.weight"] = (hidden,)
    return shapes | (_affine(f"{root}.output_proj", (latent, hidden)) if hidden != latent else {})


def _upsampling(config: Code2WavConfig) -> dict[str, tuple[int, ...]]:
    latent = latent_dim(config)
    shapes: dict[str, tuple[int, ...]] = {}
    for index, ratio in enumerate(config.upsampling_ratios):
        name = f"upsample.{index}"
        shapes |= _affine(f"{name}.0.conv", (latent, latent, ratio))
        shapes |= _affine(f"{name}.1.dwconv.conv", (latent, 1, KERNEL)) | _affine(f"{name}.1.norm", (latent,))
        shapes |= _affine(f"{name}.1.pwconv1", (4 * latent, latent)) | _affine(
            f"{name}.1.pwconv2", (latent, 4 * latent)
        )
        shapes[f"{name}.1.gamma"] = (latent,)
    return shapes


def _decoder(config: Code2WavConfig) -> dict[str, tuple[int, ...]]:
    root, width = NESTED_DECODER.root, config.decoder_dim
    shapes = _affine(f"{root}0.conv", (width, latent_dim(config), KERNEL))
    for index, rate in enumerate(config.upsample_rates):
        block, narrow = f"{root}{index + 1}.block", width // 2
        shapes |= _snake(f"{block}.0", width) | _affine(
            f"{block}.1.conv", (width, narrow, 2 * rate), out=narrow
        )
        for unit in range(len(DILATIONS)):
            first, dilated, second, pointwise = (f"{block}.{unit + 2}.{part}" for part in NESTED_DECODER.unit)
            shapes |= _snake(first, narrow) | _affine(f"{dilated}.conv", (narrow, narrow, KERNEL))
            shapes |= _snake(second, narrow) | _affine(f"{pointwise}.conv", (narrow, narrow, 1))
        width = narrow
    last = len(config.upsample_rates) + 1
    return shapes | _snake(f"{root}{last}", width) | _affine(f"{root}{last + 1}.conv", (1, width, KERNEL))


def _affine(name: str, shape: tuple[int, ...], out: int = 0) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": (out or shape[0],)}


def _snake(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.alpha": (channels,), f"{name}.beta": (channels,)}
