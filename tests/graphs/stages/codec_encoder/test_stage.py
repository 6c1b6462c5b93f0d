"""The codec encoder against HF MimiModel.encode with the same random weights, and its ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from antiphon.graphs.config import CodecEncoderConfig, OmniConfig
from antiphon.graphs.stage import Stage
from antiphon.graphs.stages.codec_encoder.stage import codec_encoder_stage
from antiphon.graphs.stages.codec_encoder.tensors import samples_per_frame, tensor_shapes
from antiphon.runtime.bundle.errors import AntiphonError

from ...module_pair import FakeCheckpoint, check_example_axes, load_module, randomise, relative_error

TINY: dict[str, Any] = dict(
    num_filters=4,
    hidden_size=32,
    upsampling_ratios=(4, 3, 2),
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=48,
    codebook_size=64,
    codebook_dim=16,
    sliding_window=7,
)
FRAME = 48
MARGIN = 1e-4
SHAPES: list[dict[str, Any]] = [
    dict(codebook_dim=32),  # no projection before the codebooks
    dict(
        num_residual_layers=2,
        dilation_growth_rate=3,
        compress=4,
        residual_kernel_size=5,
        num_key_value_heads=4,
    ),
    dict(
        upsampling_ratios=(5, 2),
        kernel_size=5,
        last_kernel_size=5,
        num_semantic_quantizers=2,
        num_quantizers=5,
        rope_theta=500.0,
    ),
    dict(head_dim=4, sliding_window=1, num_hidden_layers=1, norm_eps=0.1),
]


def config_of(**changes: Any) -> CodecEncoderConfig:
    return CodecEncoderConfig(**{**TINY, **changes})


def make_stage(**changes: Any) -> Stage:
    return codec_encoder_stage(cast(OmniConfig, SimpleNamespace(codec_encoder=config_of(**changes))))


class Pair:
    """The stage's module beside MimiModel, both with the values of `seed`,
    the module's read under the published names.
    """

    def __init__(self, folder: Path, seed: int = 0, **changes: Any) -> None:
        transformers = pytest.importorskip("transformers")
        safetensors = pytest.importorskip("safetensors.torch")
        self.config = config_of(**changes)
        fields = {**TINY, **changes}
        theta = fields.pop("rope_theta", 10000.0)
        fields |= dict(
            num_quantizers=20,
            upsampling_ratios=list(self.config.upsampling_ratios),
            vector_quantization_hidden_dimension=self.config.codebook_dim,
            upsample_groups=self.config.hidden_size,
            rope_parameters={"rope_type": "default", "rope_theta": theta},
        )
        self.reference = (
            transformers.MimiModel(transformers.MimiConfig(**fields)).eval().requires_grad_(False)
        )
        randomise(self.reference, seed)
        generator = torch.Generator().manual_seed(seed)
        for name, buffer in self.reference.named_buffers():
            if name.endswith("embed_sum"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.5)
            elif name.endswith("cluster_usage"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
                buffer[3] = 1e-7  # an entry that nothing chose: the reference divides by 1e-5
        self.reference.save_pretrained(folder)
        published = safetensors.load_file(folder / "model.safetensors")
        self.checkpoint = FakeCheckpoint(SimpleNamespace(state_dict=lambda: published), "codec_encoder.")
        self.stage = make_stage(**changes)
        self.module = load_module(self.stage, self.checkpoint)

    def expected(self, waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The reference's codes [batch, frames, codebooks],
        and whether each is decided by more than MARGIN in float64.
        """
        latents = self.latents(waveform).transpose(1, 2)
        codes = self.reference.encode(torch.from_numpy(waveform)[:, None]).audio_codes[
            :, : self.config.num_quantizers
        ]
        sure: list[Any] = []
        quantizer = self.reference.quantizer
        for side in (
            quantizer.semantic_residual_vector_quantizer,
            quantizer.acoustic_residual_vector_quantizer,
        ):
            rest = (latents if side.input_proj is None else side.input_proj(latents)).double().transpose(1, 2)
            for layer in side.layers[: self.config.num_quantizers - len(sure)]:
                entries = layer.codebook.embed.double()
                nearest = (rest[:, :, None] - entries).norm(dim=3).topk(2, dim=2, largest=False).values
                rest = rest - entries[codes[:, len(sure)]]
                sure.append(nearest[..., 1] - nearest[..., 0] > MARGIN)
        return codes.transpose(1, 2).numpy(), torch.stack(sure, dim=2).numpy()

    def latents(self, waveform: np.ndarray) -> Any:
        """What the reference quantises, [batch, frames, hidden]."""
        return self.reference.encoder(torch.from_numpy(waveform)[:, None]).latents.transpose(1, 2)

    def feeds(self, waveform: np.ndarray) -> dict[str, np.ndarray]:
        """Whole frames: behind the recording lies noise, which must not matter."""
        batch, length = waveform.shape
        frame = samples_per_frame(self.config)
        padded = sound((batch, -(-length // frame) * frame), seed=99)
        padded[:, :length] = waveform
        return {"waveform": padded, "waveform_length": np.full(batch, length)}

    def run(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        codes, _ = self.module(*(torch.from_numpy(feed) for feed in feeds.values()))
        return codes.numpy()

    def check(self, found: np.ndarray, waveform: np.ndarray) -> None:
        """Codes equal but where the margin is small, and behind a code that fell on the other side there."""
        expected, sure = self.expected(waveform)
        assert found.dtype == np.int64 and found.shape == expected.shape
        wrong, semantic = found != expected, self.config.num_semantic_quantizers
        for side in (slice(semantic), slice(semantic, None)):
            follows = np.cumsum(wrong[..., side], axis=2) > wrong[..., side]
            assert not (wrong[..., side] & sure[..., side] & ~follows).any()
        assert sure.mean() >= 0.99 or sure.size < 1000
        assert wrong.mean() < 0.01 or sure.size < 1000

    def check_module(self, waveform: np.ndarray) -> None:
        self.check(self.run(self.feeds(waveform)), waveform)


def sound(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("mimi"))


@pytest.mark.parametrize(
    "length",
    [1, 2, 3, FRAME - 1, FRAME, FRAME + 1, FRAME + 2, 2 * FRAME - 1, 2 * FRAME, 500, 1000, 1937, 375 * FRAME],
)
def test_codes_equal_the_reference_for_recordings_of_any_length(pair: Pair, length: int) -> None:
    pair.check_module(sound((2, length), seed=length))


def test_codes_equal_the_reference_for_every_left_over_of_a_frame(pair: Pair) -> None:
    for left in range(1, FRAME + 1):
        pair.check_module(sound((1, 2 * FRAME + left), seed=left))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("changes", SHAPES)
def test_codes_equal_the_reference_for_other_shapes_and_seeds(
    changes: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    Pair(tmp_path, seed, **changes).check_module(sound((2, 1234), seed=seed))


def test_codes_of_silence_equal_the_reference(pair: Pair) -> None:
    pair.check_module(np.zeros((1, 700), np.float32))


def test_rows_of_a_ragged_batch_equal_each_recording_alone(pair: Pair) -> None:
    lengths, waveform = [5, 48, 333, 480], sound((4, 480))
    codes = pair.run({"waveform": waveform, "waveform_length": np.array(lengths)})
    for row, length in enumerate(lengths):
        frames = -(-length // FRAME)
        np.testing.assert_array_equal(
            codes[row : row + 1, :frames], pair.run(pair.feeds(waveform[row : row + 1, :length]))
        )


def test_earlier_codes_do_not_depend_on_what_follows(pair: Pair) -> None:
    waveform = sound((1, 20 * FRAME))
    whole, part = pair.run(pair.feeds(waveform)), pair.run(pair.feeds(waveform[:, : 11 * FRAME]))
    np.testing.assert_array_equal(whole[:, :11], part)


@pytest.mark.parametrize("changes", [{}, *SHAPES])
def test_tensor_shapes_are_those_of_the_published_checkpoint(changes: dict[str, Any], tmp_path: Path) -> None:
    made = Pair(tmp_path, **changes)
    shapes = tensor_shapes(made.config)
    assert {
        tensor for source in made.stage.weights(made.checkpoint).values() for tensor in source.tensors
    } == set(shapes)
    assert {name: made.checkpoint.shape(name) for name in shapes} == shapes


def test_defaults_are_those_of_the_published_codec() -> None:
    published = pytest.importorskip("transformers").MimiConfig()
    ours = CodecEncoderConfig()
    assert samples_per_frame(ours) == published.frame_size == 1920
    for name in set(vars(ours)) - {"num_quantizers", "rope_theta", "upsampling_ratios"}:
        assert getattr(ours, name) == getattr(published, name), name
    assert (
        list(ours.upsampling_ratios) == published.upsampling_ratios
        and published.rope_parameters["rope_theta"] == ours.rope_theta
    )


def test_constants_tell_how_to_cut_a_recording() -> None:
    assert make_stage().constants == {"sample_rate": 24000, "samples_per_frame": FRAME, "num_quantizers": 16}


def test_meta_device_allocates_nothing() -> None:
    with torch.device("meta"):
        module = make_stage().make_module()
    assert all(parameter.is_meta for parameter in module.parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(upsampling_ratios=()), "upsampling_ratios is"),
        (dict(compress=3), "num_filters is 4"),
        (dict(num_key_value_heads=3), "num_attention_heads is 4"),
        (dict(head_dim=5), "head_dim is 5"),
        (dict(num_quantizers=1), "num_quantizers is 1"),
    ],
)
def test_stage_is_refused_when_the_configuration_cannot_be_an_encoder(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(AntiphonError, match=words):
        make_stage(**changes)


def test_stage_is_refused_when_the_checkpoint_has_no_codec_encoder() -> None:
    with pytest.raises(AntiphonError, match="no codec encoder"):
        codec_encoder_stage(cast(OmniConfig, SimpleNamespace(codec_encoder=None)))


def test_example_shows_every_axis_with_a_size_of_its_own() -> None:
    check_example_axes(make_stage())


def test_portable_and_lowered_graph_give_the_modules_codes(pair: Pair, tmp_path: Path) -> None:
    ir = pytest.importorskip("onnx_ir")
    from antiphon.export.engines.onnxruntime.lower import lower
    from antiphon.export.portable import export_portable
    from antiphon.export.weights import write_weights
    from antiphon.runtime.engines.onnxruntime.sessions import make_session

    model = export_portable(pair.stage)
    write_weights(model, pair.stage.weights(pair.checkpoint), pair.checkpoint, tmp_path / "weights.bin")
    ir.save(model, tmp_path / "portable.onnx")
    lowered = lower(pair.stage, model).graph
    ir.save(lowered, tmp_path / "engine.onnx")
    for name in ("portable.onnx", "engine.onnx"):
        session = make_session(tmp_path / name, threads=1)
        for length in (1, FRAME + 1, 1937, 100 * FRAME):
            waveform = sound((3, length), seed=length)
            codes, latents = session.run(None, pair.feeds(waveform))
            pair.check(codes, waveform)
            assert relative_error(latents, pair.latents(waveform)) < 1e-5
