"""The part of a checkpoint's configuration that determines the computation of an omni model.

Field names are those of the published Hugging Face configurations (`Qwen3OmniMoeConfig`,
`Qwen3_5MoeTextConfig`, transformers 5.23). `graphs.checkpoints.read_config` fills them from the checkpoint's
files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..runtime.bundle.talker_contract import TalkerContract

NO_ID = -1
"""Stands for the id of a token that the checkpoint does not have."""
_ROLES = ("im_start", "im_end", "system", "user", "assistant", "tts_pad", "tts_bos", "tts_eos")
TEXT_IDS = tuple(f"{name}_token_id" for name in _ROLES)
MEDIA_IDS = tuple(f"{name}_token_id" for name in ("audio", "image", "video", "audio_start", "vision_start"))


@dataclass(frozen=True)
class RopeConfig:
    """Rotary embedding with base `theta`.

    `mrope_section`: number of frequencies for (time, height, width); () for a one-dimensional embedding.
    `partial_rotary_factor`: the fraction of a head's dimensions that are rotated; these come first.
    """

    theta: float
    mrope_section: tuple[int, ...] = ()
    partial_rotary_factor: float = 1.0

    def dim(self, head_dim: int) -> int:
        """Number of rotated dimensions in a head of `head_dim` dimensions."""
        return int(head_dim * self.partial_rotary_factor)


@dataclass(frozen=True)
class LinearAttentionConfig:
    """Gated DeltaNet layers: heads and head sizes of keys and values, kernel of the causal convolution.

    Queries have the heads and the head size of the keys.
    """

    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int

    @property
    def key_size(self) -> int:
        """Columns of the keys of all heads; the queries have as many."""
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def value_size(self) -> int:
        """Columns of the values of all heads."""
        return self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def conv_size(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.key_size + self.value_size


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder: the Thinker's text model, the Talker's text model or the code predictor."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope: RopeConfig
    max_position_embeddings: int
    attention_bias: bool = False
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    shared_expert_intermediate_size: int = 0
    norm_topk_prob: bool = True
    mlp_only_layers: tuple[int, ...] = ()
    decoder_sparse_step: int = 1
    tie_word_embeddings: bool = False
    layer_types: tuple[str, ...] = ()
    """`linear_attention` or `full_attention` per layer; () means full attention everywhere."""
    linear: LinearAttentionConfig | None = None
    gated_attention: bool = False
    """Full attention multiplies its output by sigmoid(gate). The query projection also computes the gates."""
    zero_centred_norms: bool = False
    """Stored norm weights are w of (1 + w), except for the norm inside a Gated DeltaNet layer."""

    def is_linear(self, layer: int) -> bool:
        """Whether layer `layer` is a Gated DeltaNet layer; otherwise it has full attention."""
        return bool(self.layer_types) and self.layer_types[layer] == "linear_attention"

    def is_sparse(self, layer: int) -> bool:
        """Whether layer `layer` has experts; otherwise it has one dense feed-forward network."""
        return (
            self.num_experts > 0
            and layer not in self.mlp_only_layers
            and (layer + 1) % self.decoder_sparse_step == 0
        )


@dataclass(frozen=True)
class AudioConfig:
    """Audio encoder (AuT): log-mel chunks of `2 * n_window` frames, attention within `n_window_infer` frames.

    `convolutions`: convolutions of stride 2 before the transformer, 3 (8 mel frames per token) or 4 (16).
    """

    num_mel_bins: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    d_model: int
    downsample_hidden_size: int
    output_dim: int
    n_window: int
    n_window_infer: int
    max_source_positions: int
    activation_function: str = "gelu"
    convolutions: int = 3


@dataclass(frozen=True)
class VisionConfig:
    """Vision encoder: a ViT with interpolated learned positions, 2D rotary embedding and deepstack."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    num_position_embeddings: int
    out_hidden_size: int
    deepstack_visual_indexes: tuple[int, ...] = ()
    hidden_act: str = "gelu_pytorch_tanh"
    rope_theta: float = 10000.0


@dataclass(frozen=True)
class Code2WavConfig:
    """Vocoder: codes to waveform. `codebook_dim` selects one of two input layers.

    0: one table embeds all codes, and the embeddings are averaged (Qwen3-Omni).
    Otherwise each code is a vector of `codebook_dim` (SplitRVQ: Qwen3.5-Omni, Qwen3-TTS). The sum of the
    semantic vectors and the sum of the acoustic vectors are projected to `quantizer_dim` and added. A causal
    convolution with kernel `pre_conv_kernel` maps the result to `latent_dim`.
    """

    codebook_size: int
    num_quantizers: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    sliding_window: int
    rms_norm_eps: float
    rope: RopeConfig
    upsample_rates: tuple[int, ...]
    upsampling_ratios: tuple[int, ...]
    decoder_dim: int
    attention_bias: bool = False
    codebook_dim: int = 0
    quantizer_dim: int = 0
    latent_dim: int = 0
    pre_conv_kernel: int = 3
    num_semantic_quantizers: int = 1
    head_dim: int = 0
    """Head size of the transformer; 0 means hidden_size / num_attention_heads."""
    symmetric_trim: bool = True
    """Whether transposed convolutions drop samples on both sides (Qwen3-Omni) or only on the right.
    Dropping on both sides delays a stream."""
    sample_rate: int = 24000

    @property
    def samples_per_frame(self) -> int:
        """Waveform samples per codec frame:
        the product of all upsampling rates (1,920 in the published models).
        """
        product = 1
        for rate in (*self.upsampling_ratios, *self.upsample_rates):
            product *= rate
        return product


@dataclass(frozen=True)
class CodecEncoderConfig:
    """Waveform to codes: the encoder of a Mimi-type codec. Field names are those of HF's MimiConfig.

    Only the first `num_quantizers` codebooks are used.
    """

    num_quantizers: int = 16
    num_semantic_quantizers: int = 1
    codebook_size: int = 2048
    codebook_dim: int = 256
    hidden_size: int = 512
    num_filters: int = 64
    num_residual_layers: int = 1
    upsampling_ratios: tuple[int, ...] = (8, 6, 5, 4)
    kernel_size: int = 7
    last_kernel_size: int = 3
    residual_kernel_size: int = 3
    dilation_growth_rate: int = 2
    compress: int = 2
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_key_value_heads: int = 8
    head_dim: int = 64
    intermediate_size: int = 2048
    sliding_window: int = 250
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    sampling_rate: int = 24000


@dataclass(frozen=True)
class TalkerConfig:
    """Talker: its decoder, the code predictor and the codec ids.

    `contract`: the inputs of the family's Talkers; generation_config.json can state another layout.
    `speaker_id`: the codec id of each voice, or its row in the table of codec prompts (see `contract.voice`).
    Only Qwen3.5-Omni has these fields:
    `text_vocab_size`: rows of the Talker's own text embedding.
    `predictor_projection`: the code predictor projects Talker rows to its own width.
    `language_id`: the codec id of each language.
    `speaker_prompt_id`, `style_prompt_id`: text ids in the system and in the assistant part of the prompt.
    `text_rows`, `frame_rows`: rows of text and of frames in each chunk of the interleaved layout.
    """

    text: DecoderConfig
    predictor: DecoderConfig
    num_code_groups: int
    thinker_hidden_size: int
    accept_hidden_layer: int
    codec_eos_token_id: int
    codec_nothink_id: int
    codec_think_bos_id: int
    codec_think_eos_id: int
    codec_pad_id: int
    codec_bos_id: int
    speaker_id: dict[str, int]
    position_id_per_seconds: int
    spatial_merge_size: int
    contract: TalkerContract
    codec_think_id: int = 0
    text_vocab_size: int = 0
    predictor_projection: bool = False
    language_id: dict[str, int] = field(default_factory=dict)
    speaker_prompt_id: dict[str, tuple[int, ...]] = field(default_factory=dict)
    style_prompt_id: dict[str, tuple[int, ...]] = field(default_factory=dict)
    default_speaker: str | None = None
    text_rows: int = 4
    frame_rows: int = 4


@dataclass(frozen=True)
class ThinkerConfig:
    """Thinker: its decoder, the two encoders and the multimodal ids.

    `audio` or `vision` is None if the checkpoint lacks that encoder. An id that it lacks is NO_ID.
    `timestamp_format`: a Python format of `seconds`; "" means no timestamps. The text stands before each
    temporal patch of a video and every `audio_timestamp_seconds` in audio (0: never).
    `mtp_num_hidden_layers`: layers of the draft head (0 or 1).
    The last three fields are the same for all checkpoints of a family:
    `textual_time`: each temporal patch of a video is a separate run of tokens, after its timestamp.
    `may_think`: the chat template has `enable_thinking`, the tokenizer the tokens <think> and </think>.
    `states_video_size`: the video processor's file states the size of a frame; otherwise it is fixed.
    """

    text: DecoderConfig
    audio: AudioConfig | None
    vision: VisionConfig | None
    audio_token_id: int = NO_ID
    image_token_id: int = NO_ID
    video_token_id: int = NO_ID
    audio_start_token_id: int = NO_ID
    vision_start_token_id: int = NO_ID
    position_id_per_seconds: int = 0
    timestamp_format: str = ""
    audio_timestamp_seconds: float = 0.0
    mtp_num_hidden_layers: int = 0
    textual_time: bool = False
    may_think: bool = False
    states_video_size: bool = False

    @property
    def deepstack_layers(self) -> int:
        """Number of vision encoder layers whose features are also added inside the decoder."""
        return len(self.vision.deepstack_visual_indexes) if self.vision else 0


@dataclass(frozen=True)
class OmniConfig:
    """The configuration of one checkpoint. Without speech, `talker` and `code2wav` are None.

    A `tts_*` id that the checkpoint lacks is NO_ID.
    """

    family: str
    thinker: ThinkerConfig
    talker: TalkerConfig | None
    code2wav: Code2WavConfig | None
    im_start_token_id: int
    im_end_token_id: int
    system_token_id: int
    user_token_id: int
    assistant_token_id: int
    raw: dict[str, Any] = field(repr=False, compare=False)
    tts_pad_token_id: int = NO_ID
    tts_bos_token_id: int = NO_ID
    tts_eos_token_id: int = NO_ID
    rename: dict[str, str] = field(default_factory=dict, compare=False)
    """Prefix of a stored tensor name -> prefix in a whole checkpoint, for a Thinker that was saved alone."""
    left_out: tuple[str, ...] = ()
    """The parts of a whole model that this checkpoint lacks, each with the reason."""
    codec_encoder: CodecEncoderConfig | None = None
    """The encoder of voice recordings; None if the checkpoint lacks it."""
