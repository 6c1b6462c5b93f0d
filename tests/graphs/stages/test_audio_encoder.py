"""The audio encoder of three convolutions against the public reference class,
of four against a formula, and its ONNX export.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from antiphon.graphs.config import AudioConfig, OmniConfig
from antiphon.graphs.stage import Stage
from antiphon.graphs.stages.audio_encoder import audio_encoder_stage
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.audio.audio_layout import audio_calls, audio_layout, audio_tokens

from ..module_pair import (
    FakeCheckpoint,
    check_example_axes,
    exported_session,
    load_module,
    load_reference_weights,
    randomise,
    relative_error,
)

PREFIX = "thinker.audio_tower."
TINY = dict(
    num_mel_bins=16,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=48,
    d_model=32,
    downsample_hidden_size=6,
    output_dim=24,
)
WINDOWS = dict(n_window=50, n_window_infer=800, max_source_positions=1500)
SHAPES = [
    {},
    dict(d_model=96, encoder_attention_heads=4, num_mel_bins=13, downsample_hidden_size=5, encoder_layers=1),
    dict(d_model=48, encoder_attention_heads=3, num_mel_bins=128, output_dim=40, encoder_layers=3),
]


def make_stage(**changes: Any) -> Stage:
    return audio_encoder_stage(
        cast(
            OmniConfig,
            SimpleNamespace(thinker=SimpleNamespace(audio=AudioConfig(**{**TINY, **WINDOWS, **changes}))),
        )
    )


def reference(seed: int = 0, **changes: Any) -> Any:
    modeling = pytest.importorskip("transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe")
    config = modeling.Qwen3OmniMoeAudioEncoderConfig(**{**TINY, **WINDOWS, **changes})
    config._attn_implementation = "eager"
    encoder = modeling.Qwen3OmniMoeAudioEncoder(config).eval()
    randomise(encoder, seed)
    return encoder


def clips_of(lengths: list[int], mel: int, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal((mel, length), dtype=np.float32) for length in lengths]


def run(module: Any, feeds: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        (features,) = module(*(torch.from_numpy(feed) for feed in feeds.values()))
    return features.numpy()


def run_reference(encoder: Any, clips: list[np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        frames = torch.from_numpy(np.concatenate(clips, axis=1))
        return encoder(
            frames, feature_lens=torch.tensor([clip.shape[1] for clip in clips])
        ).last_hidden_state.numpy()


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    encoder = reference()
    return load_reference_weights(make_stage(), encoder, PREFIX), encoder


@pytest.mark.parametrize(
    "lengths",
    [
        [10],
        [100],
        [801],
        [3000],
        [1],
        [8, 9],
        [3000, 10, 801, 100],
        [50, 30],
        [7, 1000, 93, 92, 101],
        [799, 800, 801, 899, 900, 901],
        [1600, 1601],
        [1599, 1700, 5],
    ],
)
def test_features_equal_the_reference_for_clips_of_any_length(
    pair: tuple[Any, Any], lengths: list[int]
) -> None:
    module, encoder = pair
    clips = clips_of(lengths, TINY["num_mel_bins"], seed=sum(lengths))
    feeds, tokens = audio_layout(clips, 50, 800)
    found = run(module, feeds)
    assert sum(tokens) == len(found)
    assert relative_error(found, run_reference(encoder, clips)) < 1e-5


def test_features_equal_the_reference_for_every_left_over_of_a_chunk(pair: tuple[Any, Any]) -> None:
    module, encoder = pair
    for start in range(1, 101, 20):
        clips = clips_of(
            [1 if start == 1 else 200, *range(start, start + 20), 800 + start],
            TINY["num_mel_bins"],
            seed=start,
        )
        assert (
            relative_error(run(module, audio_layout(clips, 50, 800)[0]), run_reference(encoder, clips)) < 1e-5
        )


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("changes", SHAPES)
def test_features_equal_the_reference_for_other_shapes_and_seeds(changes: dict[str, int], seed: int) -> None:
    encoder = reference(seed, **changes)
    module = load_reference_weights(make_stage(**changes), encoder, PREFIX)
    clips = clips_of([120, 33], encoder.config.num_mel_bins, seed)
    assert relative_error(run(module, audio_layout(clips, 50, 800)[0]), run_reference(encoder, clips)) < 1e-5


def test_queries_keys_and_values_may_be_stored_as_one_tensor(pair: tuple[Any, Any]) -> None:
    module, encoder = pair
    checkpoint = FakeCheckpoint(encoder, PREFIX)
    for layer in range(TINY["encoder_layers"]):
        prefix = f"{PREFIX}layers.{layer}.self_attn."
        for kind in ("weight", "bias"):
            checkpoint.tensors[f"{prefix}qkv_proj.{kind}"] = np.concatenate(
                [checkpoint.tensors.pop(f"{prefix}{part}_proj.{kind}") for part in "qkv"]
            )
    for ours, theirs in zip(
        load_module(make_stage(), checkpoint).parameters(), module.parameters(), strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_features_equal_the_reference_when_small_activations_show_the_epsilon_of_the_norms() -> None:
    encoder = reference()
    for name, parameter in encoder.named_parameters():
        if "norm" not in name and not name.startswith(("ln_post", "proj")):
            parameter.data *= 1e-3
    encoder.positional_embedding.positional_embedding.zero_()
    module = load_reference_weights(make_stage(), encoder, PREFIX)
    module._positions = lambda x: torch.zeros(x.shape[1:])
    clips = clips_of([130], TINY["num_mel_bins"])
    assert relative_error(run(module, audio_layout(clips, 50, 800)[0]), run_reference(encoder, clips)) < 1e-5


def test_attention_windows_follow_the_configuration() -> None:
    changes = dict(n_window_infer=250)  # two chunks: the half chunk that is left does not count
    encoder = reference(**changes)
    module = load_reference_weights(make_stage(**changes), encoder, PREFIX)
    clips = clips_of([530, 90], TINY["num_mel_bins"])
    assert relative_error(run(module, audio_layout(clips, 50, 250)[0]), run_reference(encoder, clips)) < 1e-5


def test_small_calls_give_the_features_of_one_call(pair: tuple[Any, Any]) -> None:
    module, encoder = pair
    clips = clips_of([1650, 40, 2403], TINY["num_mel_bins"])
    parts = [run(module, feeds) for feeds in audio_calls(clips, 50, 800, max_windows=2)]
    assert len(parts) == 4
    assert relative_error(np.concatenate(parts), run_reference(encoder, clips)) < 1e-5


def formula(tensors: dict[str, Any], clips: list[np.ndarray], config: AudioConfig) -> np.ndarray:
    """The encoder in float64 from the published tensors, chunk by chunk and window by window,
    whatever the number of convolutions.
    """
    f = torch.nn.functional
    weight = {name.removeprefix(PREFIX): torch.from_numpy(value).double() for name, value in tensors.items()}

    def linear(x: Any, name: str) -> Any:
        return f.linear(x, weight[f"{name}.weight"], weight.get(f"{name}.bias"))

    def norm(x: Any, name: str) -> Any:
        return f.layer_norm(x, x.shape[-1:], weight[f"{name}.weight"], weight[f"{name}.bias"], 1e-5)

    def halved(frames: int) -> int:
        for _ in range(config.convolutions):
            frames = (frames - 1) // 2 + 1
        return frames

    full = 2 * config.n_window
    longest = min(full, max(clip.shape[1] for clip in clips))
    half = config.d_model // 2
    rates = torch.exp(-np.log(10_000.0) / (half - 1) * torch.arange(half, dtype=torch.float64))
    features = []
    for clip in clips:
        tokens = []
        for start in range(0, clip.shape[1], full):
            chunk = torch.from_numpy(clip[:, start : start + full]).double()
            x = f.pad(chunk, (0, longest - chunk.shape[1]))[None, None]
            for number in range(1, config.convolutions + 1):
                x = f.gelu(
                    f.conv2d(
                        x,
                        weight[f"conv2d{number}.weight"],
                        weight[f"conv2d{number}.bias"],
                        stride=2,
                        padding=1,
                    )
                )
            x = linear(x[0].permute(2, 0, 1).flatten(1), "conv_out")  # [tokens, channels * bins]
            angles = torch.arange(len(x), dtype=torch.float64)[:, None] * rates
            tokens.append((x + torch.cat((angles.sin(), angles.cos()), dim=1))[: halved(chunk.shape[1])])
        window = halved(full) * (config.n_window_infer // full)
        for x in torch.cat(tokens).split(window):
            for layer in range(config.encoder_layers):
                name, heads = f"layers.{layer}", config.encoder_attention_heads
                y = norm(x, f"{name}.self_attn_layer_norm")
                q, k, v = (
                    linear(y, f"{name}.self_attn.{part}_proj").unflatten(1, (heads, -1)).transpose(0, 1)
                    for part in "qkv"
                )
                scores = (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).softmax(dim=2)
                x = x + linear((scores @ v).transpose(0, 1).flatten(1), f"{name}.self_attn.out_proj")
                x = x + linear(
                    f.gelu(linear(norm(x, f"{name}.final_layer_norm"), f"{name}.fc1")), f"{name}.fc2"
                )
            features.append(linear(f.gelu(linear(norm(x, "ln_post"), "proj1")), "proj2"))
    return torch.cat(features).numpy()


class FourConvolutions:
    """A checkpoint of random tensors whose audio encoder has a fourth convolution,
    and one half the bins before conv_out.
    """

    path = Path("/checkpoint")

    def __init__(self, mel: int) -> None:
        source = reference(7, num_mel_bins=mel)
        channels, bins = TINY["downsample_hidden_size"], -(-mel // 16)
        generator = np.random.default_rng(8)
        self.tensors = {PREFIX + name: tensor.numpy() for name, tensor in source.state_dict().items()}
        for name, shape in (
            ("conv2d4.weight", (channels, channels, 3, 3)),
            ("conv2d4.bias", (channels,)),
            ("conv_out.weight", (32, channels * bins)),
        ):
            self.tensors[PREFIX + name] = (
                generator.standard_normal(shape) * 1.5 / np.sqrt(np.prod(shape[1:]))
            ).astype(np.float32)

    def has(self, name: str) -> bool:
        return name in self.tensors

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name]


@pytest.mark.parametrize("windows", [(50, 800), (100, 800), (50, 250), (12, 75)])
@pytest.mark.parametrize("mel", [16, 13])
def test_four_convolutions_equal_the_formula_in_float64(mel: int, windows: tuple[int, int]) -> None:
    changes = dict(num_mel_bins=mel, convolutions=4, n_window=windows[0], n_window_infer=windows[1])
    stage, checkpoint = make_stage(**changes), FourConvolutions(mel)
    module, config = load_module(stage, checkpoint), AudioConfig(**{**TINY, **WINDOWS, **changes})
    for lengths in ([1], [15, 16, 17], [100], [33, 250], [801, 99, 1700], [1601]):
        clips = clips_of(lengths, mel, seed=sum(lengths))
        expected = formula(checkpoint.tensors, clips, config)
        feeds, tokens = audio_layout(clips, *windows, convolutions=4)
        found = run(module, feeds)
        assert sum(tokens) == len(found)
        assert relative_error(found, expected) < 1e-5
        parts = [run(module, feeds) for feeds in audio_calls(clips, *windows, max_windows=2, convolutions=4)]
        assert relative_error(np.concatenate(parts), expected) < 1e-5


def test_the_formula_with_three_convolutions_is_the_reference(pair: tuple[Any, Any]) -> None:
    encoder, clips = pair[1], clips_of([801, 99, 30], TINY["num_mel_bins"])
    tensors = {PREFIX + name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
    assert (
        relative_error(formula(tensors, clips, AudioConfig(**TINY, **WINDOWS)), run_reference(encoder, clips))
        < 1e-5
    )


def test_published_sizes_give_3840_features_before_the_projection_and_7_tokens_a_second() -> None:
    sizes = dict(
        num_mel_bins=128, downsample_hidden_size=480, d_model=1280, encoder_attention_heads=20, convolutions=4
    )
    with torch.device("meta"):
        module = make_stage(**sizes).make_module()
    assert module.convolution_output.weight.shape == (3840, 1280)
    assert audio_tokens(10 * 3600 * 100, 50, convolutions=4) == 252_000


@pytest.mark.parametrize(
    ("expected", "words"), [(3, "has 4 convolutions .* expected 3"), (5, "has 4 convolutions .* expected 5")]
)
def test_weights_are_refused_when_their_convolutions_are_not_those_of_the_family(
    expected: int, words: str
) -> None:
    with pytest.raises(AntiphonError, match=words):
        make_stage(convolutions=expected).weights(FourConvolutions(16))


def test_an_empty_window_gives_finite_features(pair: tuple[Any, Any]) -> None:
    feeds, _ = audio_layout(clips_of([30, 20], TINY["num_mel_bins"]), 50, 800)
    feeds["window_length"][1] = 0
    assert np.isfinite(run(pair[0], feeds)).all()


def test_meta_device_allocates_nothing() -> None:
    with torch.device("meta"):
        module = make_stage().make_module()
    assert all(parameter.is_meta for parameter in module.parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(encoder_attention_heads=5), "5 heads"),
        (dict(n_window_infer=99), "n_window_infer is 99"),
        (dict(activation_function="tanh"), "'tanh'"),
        (dict(d_model=33, encoder_attention_heads=3), "d_model is 33"),
    ],
)
def test_stage_is_refused_when_the_configuration_cannot_be_an_encoder(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(AntiphonError, match=words):
        make_stage(**changes)


@pytest.mark.parametrize("convolutions", [3, 4])
def test_example_shows_every_axis_with_a_size_of_its_own(convolutions: int) -> None:
    check_example_axes(make_stage(convolutions=convolutions))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("convolutions", [3, 4])
def test_export_with_dynamic_axes_gives_the_modules_features_at_other_sizes(
    convolutions: int, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    stage = make_stage(encoder_layers=1, convolutions=convolutions)
    module = stage.make_module().eval()
    randomise(module, seed=3)
    session = exported_session(stage, module, tmp_path)
    for lengths in ([10], [100], [1730, 30, 800], [8, 16]):
        feeds, _ = audio_layout(clips_of(lengths, TINY["num_mel_bins"]), 50, 800, convolutions=convolutions)
        assert relative_error(session.run(None, feeds)[0], run(module, feeds)) < 1e-5
