"""The Code2Wav stage: codec frames to a waveform."""

from __future__ import annotations

import numpy as np
import torch

from ....runtime.bundle.errors import AntiphonError
from ....runtime.bundle.specs import TensorSpec
from ...config import Code2WavConfig, OmniConfig
from ...stage import Stage
from .module import Code2Wav, decoder_delay
from .tensors import head_dim, latent_dim
from .weights import code2wav_weights


def code2wav_stage(config: OmniConfig) -> Stage:
    """The Code2Wav stage of `config`.

    codes int64 [batch, frames, codebooks], past_length int64 [batch] (frames decoded before this call) ->
    audio float32 [batch, samples] in [-1, 1], samples = samples_per_frame * frames. The output is delayed by
    `lead_samples`: the first lead_samples of a stream are zeros, and the caller drops them. The rest equals
    the unstreamed waveform. Raises AntiphonError if the checkpoint has no Code2Wav or its sizes do not
    divide.
    """
    if config.code2wav is None:
        raise AntiphonError(
            "This checkpoint has no Code2Wav (enable_audio_output is false); "
            "build it for text only or use one with speech output."
        )
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
        inputs=(
            TensorSpec("codes", "int64", ("batch", "frames", vocoder.num_quantizers)),
            TensorSpec("past_length", "int64", ("batch",)),
        ),
        outputs=(TensorSpec("audio", "float32", ("batch", "samples")),),
        states=states,
        example=example,
        weights=lambda checkpoint: code2wav_weights(vocoder, checkpoint),
        constants={
            "sample_rate": vocoder.sample_rate,
            "samples_per_frame": vocoder.samples_per_frame,
            "lead_samples": decoder_delay(vocoder, len(vocoder.upsample_rates)),
            "num_quantizers": vocoder.num_quantizers,
            "codebook_size": vocoder.codebook_size,
            "sliding_window": vocoder.sliding_window,
        },
        configuration=vocoder,
    )


def _check(config: Code2WavConfig) -> None:
    def expect(condition: bool, sentence: str) -> None:
        if not condition:
            raise AntiphonError(f"code2wav_config: {sentence}; correct config.json.")

    hidden, heads, key_value_heads = (
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
    )
    if config.head_dim:
        expect(head_dim(config) % 2 == 0, f"head_dim is {config.head_dim}, expected an even number")
    else:
        expect(
            hidden % (2 * heads) == 0,
            f"hidden_size is {hidden}, expected a multiple of twice num_attention_heads ({heads})",
        )
    expect(
        heads % key_value_heads == 0,
        f"num_attention_heads is {heads}, expected a multiple of num_key_value_heads ({key_value_heads})",
    )
    expect(config.sliding_window >= 2, f"sliding_window is {config.sliding_window}, expected 2 or more")
    halvings = 2 ** len(config.upsample_rates)
    expect(
        config.decoder_dim % halvings == 0,
        f"decoder_dim is {config.decoder_dim}, expected a multiple of {halvings}, "
        "halved once per upsample rate",
    )
    expect(bool(config.upsample_rates), "upsample_rates is empty, expected one rate per decoder block")
    if config.codebook_dim == 0:
        expect(
            latent_dim(config) == hidden,
            f"latent_dim is {config.latent_dim}, expected hidden_size ({hidden}) since "
            "codebook_dim is missing",
        )
        return
    semantic, quantizers = config.num_semantic_quantizers, config.num_quantizers
    expect(
        config.quantizer_dim > 0,
        "quantizer_dim is missing, expected the size of projected codes since codebook_dim is stated",
    )
    expect(
        0 < semantic < quantizers, f"num_semantic_quantizers is {semantic}, expected 1 to {quantizers - 1}"
    )
    expect(config.pre_conv_kernel >= 2, f"pre_conv_kernel is {config.pre_conv_kernel}, expected 2 or more")
    expect(bool(config.upsampling_ratios), "upsampling_ratios is empty, expected one or more ratios")
