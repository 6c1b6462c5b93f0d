"""Code2Wav: equal to the public reference in one call, and equal to itself at any packet schedule."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
modeling = pytest.importorskip("transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe")
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeCode2WavConfig

from antiphon.graphs.config import Code2WavConfig, OmniConfig, RopeConfig
from antiphon.graphs.stages.code2wav.stage import code2wav_stage
from antiphon.runtime.bundle.errors import AntiphonError

from ...module_pair import FakeCheckpoint, export, exported_session, load_reference_weights, zero_states

PREFIX = "code2wav."
PUBLISHED_RATES = Code2WavConfig(
    codebook_size=40,
    num_quantizers=3,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=3,
    sliding_window=72,
    rms_norm_eps=1e-5,
    rope=RopeConfig(10_000.0),
    upsample_rates=(8, 5, 4, 3),
    upsampling_ratios=(2, 2),
    decoder_dim=32,
)
SHORT = dataclasses.replace(
    PUBLISHED_RATES,
    sliding_window=5,
    upsample_rates=(3, 2),
    upsampling_ratios=(2,),
    decoder_dim=12,
    rope=RopeConfig(500.0),
)
GROUPED = dataclasses.replace(
    SHORT,
    hidden_size=32,
    num_attention_heads=4,
    num_key_value_heads=2,
    attention_bias=True,
    num_quantizers=16,
    num_hidden_layers=3,
)


def omni(config: Code2WavConfig | None) -> OmniConfig:
    ids = dict.fromkeys(
        ("im_start", "im_end", "system", "user", "assistant", "tts_pad", "tts_bos", "tts_eos"), 0
    )
    return OmniConfig(
        "qwen3_omni_moe",
        None,
        None,
        config,
        raw={},
        **{f"{name}_token_id": value for name, value in ids.items()},
    )


def make_reference(config: Code2WavConfig, seed: int, max_position_embeddings: int = 8000):
    """The reference class with random weights: every bias, scale and exponent non-zero,
    and a waveform inside [-1, 1] of about 0.1 RMS.
    """
    fields = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(Qwen3OmniMoeCode2WavConfig)
        if hasattr(config, field.name)
    }
    rope = {"rope_type": "default", "rope_theta": config.rope.theta}
    model = modeling.Qwen3OmniMoeCode2Wav(
        Qwen3OmniMoeCode2WavConfig(
            **fields, rope_parameters=rope, max_position_embeddings=max_position_embeddings
        )
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith(("scale", "gamma")):
            parameter.data = 0.5 + 0.1 * noise
        elif "norm" in name and name.endswith("weight"):
            parameter.data = 1 + 0.1 * noise
        elif name.endswith(("alpha", "beta", "bias")):
            parameter.data = 0.2 * noise
        else:
            parameter.data = noise if "embedding" in name else 0.6 * noise / parameter[0].numel() ** 0.5
    model.eval().requires_grad_(False)
    last = model.decoder[-1].conv
    loud = decode_reference(model, random_codes(config, 1, 24, seed=99)).std()
    last.weight.mul_(0.1 / loud)
    last.bias.mul_(0.1 / loud)
    return model


def load(config: Code2WavConfig, reference):
    """The stage and its module with the reference's weights, read the way an export reads them."""
    stage = code2wav_stage(omni(config))
    return stage, load_reference_weights(stage, reference, PREFIX)


def random_codes(config: Code2WavConfig, batch: int, frames: int, seed: int):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, config.codebook_size, (batch, frames, config.num_quantizers))
    )


def decode_reference(model, codes):
    """codes [batch, frames, codebooks] -> waveform [batch, samples], in one call."""
    with torch.inference_mode():
        return model(codes.transpose(1, 2))[:, 0]


def decode(stage, module, codes, schedule):
    """The stream's whole output, leading samples included, decoded in packets of `schedule` frames."""
    states, outputs, past = zero_states(stage, codes.shape[0]), [], 0
    with torch.inference_mode():
        for packet in codes.split(schedule, dim=1):
            audio, *states = module(packet, torch.full((codes.shape[0],), past), *states)
            outputs.append(audio)
            past += packet.shape[1]
    return torch.cat(outputs, dim=1)


def largest_difference(left, right) -> float:
    assert left.shape == right.shape
    return float((left - right).abs().max())


@pytest.fixture(scope="module")
def published():
    reference = make_reference(PUBLISHED_RATES, seed=0)
    return reference, *load(PUBLISHED_RATES, reference)


@pytest.fixture(scope="module")
def short():
    reference = make_reference(SHORT, seed=1)
    return reference, *load(SHORT, reference)


@pytest.mark.parametrize("frames", [1, 2, 3, 75, 310])
@pytest.mark.parametrize(
    ("config", "seed"), [(PUBLISHED_RATES, 0), (PUBLISHED_RATES, 5), (SHORT, 1), (GROUPED, 2), (GROUPED, 3)]
)
def test_stage_equals_the_reference_after_the_lead_samples(config, seed, frames):
    reference = make_reference(config, seed)
    stage, module = load(config, reference)
    codes = random_codes(config, 2, frames, seed)
    audio = decode(stage, module, codes, [frames])
    lead = stage.constants["lead_samples"]
    expected = decode_reference(reference, codes)
    assert audio.shape == (2, frames * stage.constants["samples_per_frame"])
    assert 0.02 < expected.std() and expected.abs().max() <= 1
    assert largest_difference(audio[:, lead:], expected) < 1e-5
    assert not audio[:, :lead].any()


@settings(max_examples=12, deadline=None)
@given(schedule=st.lists(st.integers(1, 10), min_size=1, max_size=6))
def test_any_packet_schedule_equals_offline(published, schedule):
    _, stage, module = published
    codes = random_codes(PUBLISHED_RATES, 1, sum(schedule), seed=len(schedule))
    assert (
        largest_difference(
            decode(stage, module, codes, schedule), decode(stage, module, codes, [sum(schedule)])
        )
        < 1e-5
    )


@settings(max_examples=10, deadline=None)
@given(schedule=st.lists(st.integers(1, 40), min_size=3, max_size=12))
def test_any_packet_schedule_equals_offline_when_the_window_overflows_many_times(short, schedule):
    _, stage, module = short
    codes = random_codes(SHORT, 2, sum(schedule), seed=len(schedule))
    assert (
        largest_difference(
            decode(stage, module, codes, schedule), decode(stage, module, codes, [sum(schedule)])
        )
        < 1e-5
    )


def test_packet_borders_leave_no_seam(published):
    reference, stage, module = published
    codes, packet = random_codes(PUBLISHED_RATES, 1, 60, seed=7), 4
    lead, hop = stage.constants["lead_samples"], stage.constants["samples_per_frame"] * packet
    error = (decode(stage, module, codes, packet)[:, lead:] - decode_reference(reference, codes)).abs()[0]
    distance = (torch.arange(len(error)) + lead) % hop
    border = torch.minimum(distance, hop - distance) < 64
    assert border.any() and error[border].max() < 1e-5 and error[~border].max() < 1e-5
    assert error[border].mean() < 2 * error[~border].mean() + 1e-8


def test_rows_of_a_batch_are_independent_when_their_streams_began_at_different_times(published):
    _, stage, module = published
    lengths = (0, 1, 80)
    codes = random_codes(PUBLISHED_RATES, 3, 84, seed=11)
    alone, states = [], []
    with torch.inference_mode():
        for row, past in enumerate(lengths):
            state, past_length = zero_states(stage, 1), torch.tensor([0])
            if past:
                _, *state = module(codes[row : row + 1, :past], past_length, *state)
            states.append(state)
            alone.append(module(codes[row : row + 1, past : past + 4], torch.tensor([past]), *state)[0])
        packets = torch.stack([codes[row, past : past + 4] for row, past in enumerate(lengths)])
        together = module(
            packets, torch.tensor(lengths), *(torch.cat(rows) for rows in zip(*states, strict=True))
        )[0]
    assert largest_difference(together, torch.cat(alone)) < 1e-5


def test_stream_equals_the_reference_beyond_8000_frames():
    config = dataclasses.replace(
        SHORT,
        num_attention_heads=1,
        num_key_value_heads=1,
        hidden_size=8,
        sliding_window=72,
        upsample_rates=(2,),
        decoder_dim=8,
    )
    reference = make_reference(config, seed=4, max_position_embeddings=10_000)
    stage, module = load(config, reference)
    codes = random_codes(config, 1, 8200, seed=4)
    error = (
        decode(stage, module, codes, 200)[:, stage.constants["lead_samples"] :]
        - decode_reference(reference, codes)
    ).abs()
    assert error.max() < 1e-4  # the reference's own angles lose precision at these positions


def test_decoding_does_not_depend_on_the_position_in_the_stream(short):
    _, stage, module = short
    codes, states = (
        random_codes(SHORT, 1, 6, seed=3),
        [torch.randn(*state.shape[1:])[None] for state in stage.states],
    )
    with torch.inference_mode():
        early, late = (module(codes, torch.tensor([past]), *states) for past in (1_000, 1_000_000_000))
    assert all(torch.equal(one, other) for one, other in zip(early, late, strict=True))


def test_every_parameter_has_a_source_and_every_stored_tensor_is_used():
    stage, checkpoint = code2wav_stage(omni(GROUPED)), FakeCheckpoint(make_reference(GROUPED, seed=0), PREFIX)
    with torch.device("meta"):
        module = stage.make_module()
    sources = stage.weights(checkpoint)
    assert set(sources) == {name for name, _ in module.named_parameters()}
    assert {tensor for source in sources.values() for tensor in source.tensors} == set(checkpoint.tensors)
    for name, source in sources.items():
        value = source.assemble(*(checkpoint.read(tensor) for tensor in source.tensors))
        assert value.dtype == np.float32 and value.shape == tuple(module.get_parameter(name).shape), name


def test_stage_says_what_the_runtime_needs():
    stage = code2wav_stage(omni(PUBLISHED_RATES))
    assert stage.constants == {
        "sample_rate": 24_000,
        "samples_per_frame": 1920,
        "lead_samples": 555,
        "num_quantizers": 3,
        "codebook_size": 40,
        "sliding_window": 72,
    }
    shapes = {state.name: (state.kind, state.shape) for state in stage.states}
    assert shapes["layers.1.value"] == ("window", ("batch", 3, 71, 8))
    assert shapes["upsampling.0.depthwise"] == ("conv", ("batch", 24, 6))
    assert shapes["decoder.3.transposed"] == ("conv", ("batch", 4, 1))
    assert shapes["decoder.0.units.2.dilated"] == ("conv", ("batch", 16, 54))
    assert len(stage.states) == 2 * 2 + 2 + 1 + 4 * 4 + 1


def test_present_states_have_the_shapes_of_the_past_ones(short):
    _, stage, module = short
    example = {name: torch.from_numpy(value) for name, value in stage.example().items()}
    past = zero_states(stage, 2)
    _, *present = module(example["codes"], example["past_length"], *past)
    assert [state.shape for state in present] == [state.shape for state in past]


def test_stage_is_refused_when_the_checkpoint_has_no_speech_output():
    with pytest.raises(AntiphonError, match="no Code2Wav"):
        code2wav_stage(omni(None))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 27),
        ("num_key_value_heads", 2),
        ("sliding_window", 1),
        ("decoder_dim", 34),
        ("upsample_rates", ()),
    ],
)
def test_stage_is_refused_when_sizes_do_not_divide(field, value):
    with pytest.raises(AntiphonError, match=f"code2wav_config: .*{field}"):
        code2wav_stage(omni(dataclasses.replace(PUBLISHED_RATES, **{field: value})))


@pytest.mark.filterwarnings("ignore:# The axis name", "ignore:.*LeafSpec")
def test_exported_graph_equals_the_module_at_other_sizes_than_the_example(tmp_path):
    config = dataclasses.replace(GROUPED, num_hidden_layers=1)
    stage, module = load(config, make_reference(config, seed=6))
    session = exported_session(stage, module, tmp_path)
    names = [tensor.name for tensor in session.get_inputs()]
    for batch, schedule in ((1, [1]), (1, [37]), (3, [4, 1, 9])):
        codes = random_codes(config, batch, sum(schedule), seed=batch)
        states, outputs, past = [state.numpy() for state in zero_states(stage, batch)], [], 0
        for packet in codes.split(schedule, dim=1):
            values = [packet.numpy(), np.full(batch, past), *states]
            audio, *states = session.run(None, dict(zip(names, values, strict=True)))
            outputs.append(audio)
            past += packet.shape[1]
        expected = decode(stage, module, codes, schedule).numpy()
        np.testing.assert_allclose(np.concatenate(outputs, axis=1), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:# The axis name", "ignore:.*LeafSpec")
def test_module_exports_without_weights_when_built_on_the_meta_device():
    stage = code2wav_stage(omni(dataclasses.replace(SHORT, num_hidden_layers=1)))
    with torch.device("meta"):
        module = stage.make_module().eval()
    graph = export(stage, module, "meta").model.graph
    assert [str(axis) for axis in graph.inputs[0].shape] == ["batch", "frames", "3"]
    assert [value.name for value in graph.outputs] == [
        "audio",
        *(f"present.{state.name}" for state in stage.states),
    ]
