"""The strictly causal Code2Wav: equal to goldens of qwen-tts and to the reference class with its trim
patched, at any packet schedule.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.graphs.config import Code2WavConfig, RopeConfig
from antiphon.graphs.stages.code2wav.stage import code2wav_stage
from antiphon.graphs.stages.code2wav.tensors import (
    FUSED_LAYER,
    NESTED_DECODER,
    PLAIN_DECODER,
    SPLIT_LAYER,
    tensor_shapes,
)
from antiphon.runtime.bundle.errors import AntiphonError

from ...module_pair import exported_session, load_module, relative_error, zero_states

GOLDENS = Path(__file__).resolve().parents[3] / "data" / "codec_golden"
NAMES = ("published_rates", "long_stream")
PREFIX = "code2wav."
ROOT = f"{PREFIX}pre_transformer"


class Tensors:
    """Tensors in memory with what a stage asks of a checkpoint."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = tensors

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def has(self, name: str) -> bool:
        return name in self.tensors

    def expect_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if self.tensors[name].shape != shape:
            raise AntiphonError(f"tensor {name} has shape {self.tensors[name].shape}, expected {shape}")


class Golden:
    """One golden: its configuration, weights, codes [rows, frames, codebooks] and waveform [rows, samples],
    and the stage with these weights.
    """

    def __init__(self, name: str) -> None:
        values = dict(np.load(GOLDENS / f"{name}.npz"))
        self.described = json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))
        self.codes, self.waveform = (
            torch.from_numpy(values.pop("codes")),
            torch.from_numpy(values.pop("waveform")),
        )
        # The encoder's half of the quantiser takes no part in decoding.
        self.tensors = {
            PREFIX + key.removeprefix("weights/"): value
            for key, value in values.items()
            if ".input_proj" not in key or "pre_transformer" in key
        }
        self.config = _config(self.described["config"])
        self.stage = code2wav_stage(omni(self.config))
        self.module = load_module(self.stage, Tensors(self.tensors))


def _config(raw: dict[str, Any]) -> Code2WavConfig:
    """The class takes the width of projected codes as codebook_dim, and gives its codebooks half of it."""
    same = {
        field.name: raw[field.name]
        for field in dataclasses.fields(Code2WavConfig)
        if field.name in raw and not field.name.startswith("up")
    }
    return Code2WavConfig(
        **same | {"codebook_dim": raw["codebook_dim"] // 2},
        quantizer_dim=raw["codebook_dim"],
        rope=RopeConfig(raw["rope_theta"]),
        symmetric_trim=False,
        upsample_rates=tuple(raw["upsample_rates"]),
        upsampling_ratios=tuple(raw["upsampling_ratios"]),
    )


def omni(config: Code2WavConfig | None) -> Any:
    return SimpleNamespace(code2wav=config)


@pytest.fixture(scope="module")
def goldens() -> dict[str, Golden]:
    return {name: Golden(name) for name in NAMES}


def decode(stage: Any, module: Any, codes: Any, schedule: Any) -> Any:
    """The stream's whole output, decoded in packets of `schedule` frames."""
    states, outputs, past = zero_states(stage, codes.shape[0]), [], 0
    with torch.inference_mode():
        for packet in codes.split(schedule, dim=1):
            audio, *states = module(packet, torch.full((codes.shape[0],), past), *states)
            outputs.append(audio)
            past += packet.shape[1]
    return torch.cat(outputs, dim=1)


def in_folder_naming(tensors: dict[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """The same tensors with one projection for query, key and value,
    and under the names of the codec folder.
    """
    fused = dict(tensors)
    plain = [
        (getattr(SPLIT_LAYER, field), getattr(FUSED_LAYER, field))
        for field in ("output", "gate", "up", "down", "attention_norm", "feed_forward_norm")
    ]
    scales = [
        (getattr(SPLIT_LAYER, field), getattr(FUSED_LAYER, field))
        for field in ("attention_scale", "feed_forward_scale")
    ]
    for layer in range(layers):
        name = f"{ROOT}.layers.{layer}"
        fused[f"{name}.{FUSED_LAYER.projections[0]}.weight"] = np.concatenate(
            [fused.pop(f"{name}.{part}.weight") for part in SPLIT_LAYER.projections]
        )
        for split, joined in [(f"{old}.weight", f"{new}.weight") for old, new in plain] + scales:
            fused[f"{name}.{joined}"] = fused.pop(f"{name}.{split}")
    parts = dict(zip(PLAIN_DECODER.unit, NESTED_DECODER.unit, strict=True))
    return {
        ".".join(
            parts.get(part, part)
            for part in name.replace(PREFIX + PLAIN_DECODER.root, PREFIX + NESTED_DECODER.root).split(".")
        ): value
        for name, value in fused.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_stage_equals_the_golden_of_qwen_tts(goldens, name):
    golden = goldens[name]
    audio = decode(golden.stage, golden.module, golden.codes, [golden.codes.shape[1]])
    assert 0.04 < golden.waveform.std() and golden.waveform.abs().max() < 1
    assert relative_error(audio, golden.waveform) < 1e-5


@settings(max_examples=10, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_stream_equals_the_golden_at_any_packet_schedule(goldens, name, data):
    golden = goldens[name]
    frames = golden.codes.shape[1]
    borders = data.draw(st.sets(st.integers(1, frames - 1), max_size=12).map(sorted))
    schedule = np.diff([0, *borders, frames]).tolist()
    assert relative_error(decode(golden.stage, golden.module, golden.codes, schedule), golden.waveform) < 1e-5


def test_goldens_say_how_they_were_made(goldens):
    for golden in goldens.values():
        assert golden.described["versions"]["qwen-tts"] == "0.1.1" and isinstance(
            golden.described["seed"], int
        )
    assert goldens["published_rates"].stage.constants["samples_per_frame"] == 1920
    assert sum(path.stat().st_size for path in GOLDENS.iterdir()) < 2**20


def test_every_frame_gives_1920_samples_and_none_is_late(goldens):
    golden = goldens["published_rates"]
    assert golden.stage.constants["lead_samples"] == 0
    for schedule in ([1], [2, 3], [4, 1, 4]):
        assert decode(golden.stage, golden.module, golden.codes[:, : sum(schedule)], schedule).shape[
            1
        ] == 1920 * sum(schedule)


@settings(max_examples=8, deadline=None)
@given(place=st.integers(1, 89), seed=st.integers(0, 99))
def test_later_codes_never_change_earlier_samples(goldens, place, seed):
    golden = goldens["long_stream"]
    changed = golden.codes.clone()
    changed[:, place:] = torch.from_numpy(
        np.random.default_rng(seed).integers(0, golden.config.codebook_size, changed[:, place:].shape)
    )
    before, after = (
        decode(golden.stage, golden.module, codes, [codes.shape[1]]) for codes in (golden.codes, changed)
    )
    sample = place * golden.config.samples_per_frame
    torch.testing.assert_close(after[:, :sample], before[:, :sample], rtol=0, atol=1e-6)
    assert (
        not torch.equal(golden.codes, changed) and (before[:, sample:] - after[:, sample:]).abs().max() > 1e-3
    )


@pytest.mark.parametrize("name", NAMES)
def test_both_namings_give_the_same_parameters(goldens, name):
    golden = goldens[name]
    renamed = Tensors(in_folder_naming(golden.tensors, golden.config.num_hidden_layers))
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            load_module(golden.stage, renamed).parameters(), golden.module.parameters(), strict=True
        )
    )
    shapes = {tensor: value.shape for tensor, value in renamed.tensors.items()}
    extra = {tensor for tensor in shapes if tensor.startswith((f"{ROOT}.input_proj", f"{ROOT}.output_proj"))}
    expected = tensor_shapes(golden.config)
    if golden.config.latent_dim == golden.config.hidden_size:  # qwen-tts projects even between equal widths
        shapes = {tensor: shape for tensor, shape in shapes.items() if tensor not in extra}
    assert shapes == expected


def test_plain_codebooks_are_used_as_they_are_stored(goldens):
    golden = goldens["long_stream"]
    tensors = dict(golden.tensors)
    for name in [name for name in tensors if name.endswith("embedding_sum")]:
        usage = tensors.pop(name.replace("embedding_sum", "cluster_usage"))
        tensors[name.replace("embedding_sum", "embed")] = (
            tensors.pop(name) / np.maximum(usage, np.float32(1e-5))[:, None]
        )
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            load_module(golden.stage, Tensors(tensors)).parameters(), golden.module.parameters(), strict=True
        )
    )


def test_projections_are_left_out_where_no_tensor_asks_for_them():
    config = dataclasses.replace(Golden("long_stream").config, num_key_value_heads=2)
    shapes = tensor_shapes(config)
    assert not any("input_proj" in name or "pre_transformer.output_proj" in name for name in shapes)
    generator = np.random.default_rng(0)
    checkpoint = Tensors(
        {
            name: 0.1 + 0.1 * generator.normal(size=shape).astype(np.float32) ** 2
            for name, shape in shapes.items()
        }
    )
    stage = code2wav_stage(omni(config))
    module = load_module(stage, checkpoint)
    used = {tensor for source in stage.weights(checkpoint).values() for tensor in source.tensors}
    assert used == set(shapes)
    np.testing.assert_array_equal(
        module.pre_conv.weight.numpy(), checkpoint.read("code2wav.pre_conv.conv.weight")
    )


def test_stage_is_refused_when_a_tensor_has_another_shape(goldens):
    golden = goldens["published_rates"]
    name = "code2wav.quantizer.rvq_rest.vq.layers.1._codebook.embedding_sum"
    tensors = golden.tensors | {name: golden.tensors[name][:, :-1]}
    with pytest.raises(AntiphonError, match="rvq_rest.vq.layers.1._codebook.embedding_sum has shape"):
        golden.stage.weights(Tensors(tensors))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantizer_dim", 0),
        ("num_semantic_quantizers", 4),
        ("pre_conv_kernel", 1),
        ("upsampling_ratios", ()),
        ("head_dim", 7),
    ],
)
def test_stage_is_refused_when_sizes_do_not_fit(goldens, field, value):
    with pytest.raises(AntiphonError, match=f"code2wav_config: {field}"):
        code2wav_stage(omni(dataclasses.replace(goldens["published_rates"].config, **{field: value})))


def test_stream_equals_offline_beyond_8000_frames(goldens):
    golden = goldens["long_stream"]
    codes = torch.from_numpy(
        np.random.default_rng(1).integers(
            0, golden.config.codebook_size, (1, 8200, golden.config.num_quantizers)
        )
    )
    whole, packets = (decode(golden.stage, golden.module, codes, size) for size in (4100, 977))
    assert whole.shape[1] == 8200 * golden.config.samples_per_frame
    assert relative_error(packets, whole) < 1e-5


def test_rows_of_a_batch_are_independent_when_their_streams_began_at_different_times(goldens):
    golden = goldens["published_rates"]
    alone, states = [], []
    with torch.inference_mode():
        for row, past in enumerate((0, 5)):
            state = zero_states(golden.stage, 1)
            if past:
                _, *state = golden.module(golden.codes[row : row + 1, :past], torch.tensor([0]), *state)
            states.append(state)
            alone.append(
                golden.module(golden.codes[row : row + 1, past : past + 3], torch.tensor([past]), *state)[0]
            )
        packets = torch.stack([golden.codes[0, 0:3], golden.codes[1, 5:8]])
        together = golden.module(
            packets, torch.tensor([0, 5]), *(torch.cat(rows) for rows in zip(*states, strict=True))
        )[0]
    assert relative_error(together, torch.cat(alone)) < 1e-5
    assert relative_error(together[1], golden.waveform[1, 5 * 1920 : 8 * 1920]) < 1e-5


def test_right_trim_equals_the_reference_class_with_its_trim_patched():
    from . import test_stage as reference_tests

    config = dataclasses.replace(reference_tests.PUBLISHED_RATES, symmetric_trim=False)
    reference = reference_tests.make_reference(config, seed=8)
    for module in reference.modules():
        if hasattr(module, "left_pad"):
            module.left_pad = 0
    stage = code2wav_stage(omni(config))
    module = load_module(stage, reference_tests.FakeCheckpoint(reference, PREFIX))
    codes = reference_tests.random_codes(config, 2, 78, seed=8)
    expected = reference_tests.decode_reference(reference, codes)
    assert stage.constants["lead_samples"] == 0 and expected.shape == (2, 78 * 1920)
    for schedule in ([78], [1, 2, 4, 8, 16, 47], [7] * 11 + [1]):
        assert relative_error(decode(stage, module, codes, schedule), expected) < 1e-5


@pytest.mark.filterwarnings("ignore:# The axis name", "ignore:.*LeafSpec")
def test_exported_graph_equals_the_golden_at_other_sizes_than_the_example(goldens, tmp_path):
    golden = goldens["long_stream"]
    session = exported_session(golden.stage, golden.module, tmp_path)
    names = [tensor.name for tensor in session.get_inputs()]
    states, outputs, past = [state.numpy() for state in zero_states(golden.stage, 1)], [], 0
    for packet in golden.codes.split([1, 2, 40, 47], dim=1):
        audio, *states = session.run(
            None, dict(zip(names, [packet.numpy(), np.array([past]), *states], strict=True))
        )
        outputs.append(audio)
        past += packet.shape[1]
    assert relative_error(np.concatenate(outputs, axis=1), golden.waveform) < 1e-5
