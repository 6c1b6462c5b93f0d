"""From trained parameters back to checkpoint tensors:
assembling what was stored gives every parameter of every stage again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.families.registry import stages
from antiphon.graphs.stage import Stage, WeightSource
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.scripts.train_tiny.run import initialise
from antiphon.scripts.train_tiny.stored import (
    Stored,
    codebook_tensors,
    merged,
    stored_tensors,
    tie_repeated_biases,
)

STAGES = ("audio_encoder", "vision_encoder", "thinker", "talker", "predictor", "code2wav", "codec_encoder")
APART = {"code2wav": ("code_embedding",)}


@pytest.fixture(scope="module")
def checkpoint(start_checkpoint: Path) -> Checkpoint:
    return Checkpoint(start_checkpoint)


def stage_of(checkpoint: Checkpoint, name: str) -> Stage:
    return next(stage for stage in stages(checkpoint.config) if stage.name == name)


def random_parameters(stage: Stage, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values for every parameter, of a sign and with repetitions where a
    checkpoint can hold nothing else.
    """
    generator = np.random.default_rng(seed)
    with torch.device("meta"):
        module = stage.make_module()
    parameters = {}
    for name, parameter in module.named_parameters():
        values = generator.standard_normal(tuple(parameter.shape)).astype(np.float32)
        if name.endswith("decay_scale"):
            values = -0.01 - np.abs(values)
        if name.endswith(("frequency", "magnitude")):
            values = 0.1 + np.abs(values)
        if name.endswith(("upsample_bias", "transposed.bias")):
            channels = dict(module.named_parameters())[
                name.replace("upsample_bias", "norm_weight").replace(
                    "transposed.bias", "units.0.pointwise_bias"
                )
            ]
            values = np.tile(values[: len(channels)], len(values) // len(channels))
        parameters[name] = values
    return parameters


def assembled(source: WeightSource, stored: Stored) -> np.ndarray:
    return source.assemble(*(stored[name] for name in source.tensors))


@pytest.mark.parametrize("name", STAGES)
def test_stored_tensors_assemble_to_the_parameters_again(checkpoint: Checkpoint, name: str) -> None:
    stage, apart = stage_of(checkpoint, name), APART.get(name, ())
    parameters = random_parameters(stage)
    stored = stored_tensors(stage, checkpoint, parameters, apart)
    sources = stage.weights(checkpoint)
    for parameter, values in parameters.items():
        if parameter not in apart and not parameter.endswith("half_square"):
            np.testing.assert_allclose(
                assembled(sources[parameter], stored), values, rtol=1e-5, atol=1e-6, err_msg=parameter
            )
    for tensor, values in stored.items():
        assert values.dtype == np.float32 and values.shape == checkpoint.shape(tensor), tensor


def test_every_stage_of_the_tiny_model_is_tried(checkpoint: Checkpoint) -> None:
    assert {stage.name for stage in stages(checkpoint.config)} == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_every_tensor_a_stage_reads_is_stored_whole_but_the_rows_that_another_stage_holds(
    checkpoint: Checkpoint, name: str
) -> None:
    stage, apart = stage_of(checkpoint, name), APART.get(name, ())
    stored = stored_tensors(stage, checkpoint, random_parameters(stage), apart)
    read = {
        tensor
        for parameter, source in stage.weights(checkpoint).items()
        if parameter not in apart
        for tensor in source.tensors
    }
    assert set(stored) == read
    shared = {"talker.model.codec_embedding.weight"} if name == "predictor" else set()
    assert {tensor for tensor, values in stored.items() if np.isnan(values).any()} == shared


def test_codebooks_and_projections_assemble_to_the_code_embedding_they_make(checkpoint: Checkpoint) -> None:
    config = checkpoint.config.code2wav
    assert config is not None
    generator = np.random.default_rng(0)
    entries = generator.standard_normal(
        (config.num_quantizers, config.codebook_size, config.codebook_dim)
    ).astype(np.float32)
    semantic, acoustic = generator.standard_normal((2, config.quantizer_dim, config.codebook_dim)).astype(
        np.float32
    )
    source = stage_of(checkpoint, "code2wav").weights(checkpoint)["code_embedding"]
    table = assembled(source, codebook_tensors(config, entries, semantic, acoustic)).reshape(
        config.num_quantizers, config.codebook_size, -1
    )
    np.testing.assert_allclose(table[0], entries[0] @ semantic.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(table[1:], entries[1:] @ acoustic.T, rtol=1e-4, atol=1e-4)


def test_a_predictor_with_the_talkers_tables_fits_beside_the_talker_and_another_is_refused(
    checkpoint: Checkpoint,
) -> None:
    talker, predictor = stage_of(checkpoint, "talker"), stage_of(checkpoint, "predictor")
    speaking, predicting = random_parameters(talker), random_parameters(predictor, seed=1)
    stored = stored_tensors(talker, checkpoint, speaking)
    with pytest.raises(AntiphonError, match="need different values of tensor talker.*train them as one"):
        merged(stored, stored_tensors(predictor, checkpoint, predicting))
    codes = predictor.size("codebook_size")
    predicting["code_embedding"] = np.concatenate(
        (speaking["codec_embedding"][:codes], speaking["residual_embedding"])
    )
    both = merged(stored, stored_tensors(predictor, checkpoint, predicting))
    np.testing.assert_array_equal(both["talker.model.codec_embedding.weight"], speaking["codec_embedding"])
    assert not any(np.isnan(values).any() for values in both.values())


def without_a_parameter(parameters: dict[str, np.ndarray]) -> None:
    del parameters["norm"]


def of_another_shape(parameters: dict[str, np.ndarray]) -> None:
    parameters["norm"] = parameters["norm"][:-1]


def not_finite(parameters: dict[str, np.ndarray]) -> None:
    parameters["norm"] = parameters["norm"] * np.nan


def with_a_negative_magnitude(parameters: dict[str, np.ndarray]) -> None:
    parameters["output_activation.magnitude"] = -parameters["output_activation.magnitude"]


def with_a_bias_that_differs_within_a_channel(parameters: dict[str, np.ndarray]) -> None:
    parameters["decoder.0.transposed.bias"] = np.arange(
        len(parameters["decoder.0.transposed.bias"]), dtype=np.float32
    )


REFUSED = {
    without_a_parameter: "parameter norm is missing among the trained ones",
    of_another_shape: r"parameter norm has shape \[127\], expected \[128\]",
    not_finite: "parameter norm has values that are not finite",
    with_a_negative_magnitude: "parameter output_activation.magnitude has values that no stored tensor gives",
    with_a_bias_that_differs_within_a_channel: (
        "parameter decoder.0.transposed.bias has values that no stored tensor gives"
    ),
}


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_parameters_that_cannot_be_stored_are_refused(checkpoint: Checkpoint, spoil: object) -> None:
    stage = stage_of(checkpoint, "code2wav")
    parameters = random_parameters(stage)
    spoil(parameters)  # type: ignore[operator]
    with pytest.raises(AntiphonError, match=REFUSED[spoil]):  # type: ignore[index]
        stored_tensors(stage, checkpoint, parameters, APART["code2wav"])


def test_a_product_of_stored_tensors_is_refused(checkpoint: Checkpoint) -> None:
    stage = stage_of(checkpoint, "code2wav")
    with pytest.raises(
        AntiphonError,
        match=(
            "parameter code_embedding .* cannot be stored|parameter code_embedding .* no stored tensor gives"
        ),
    ):
        stored_tensors(stage, checkpoint, random_parameters(stage))


@pytest.mark.parametrize("tied", [True, False])
def test_a_trained_code2wav_can_be_stored_when_its_repeated_biases_are_tied(
    checkpoint: Checkpoint, tied: bool
) -> None:
    stage = stage_of(checkpoint, "code2wav")
    module = stage.make_module()
    initialise([module])
    if tied:
        tie_repeated_biases(module)
    feeds = {spec.name: torch.from_numpy(stage.example()[spec.name]) for spec in stage.inputs}
    batch = len(feeds["past_length"])
    past = [torch.zeros(batch, *(int(size) for size in spec.shape[1:])) for spec in stage.states]
    optimiser = torch.optim.AdamW(module.parameters(), 1e-3)
    for _ in range(2):
        module(*feeds.values(), *past)[0].square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    parameters = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    if not tied:
        with pytest.raises(AntiphonError, match="bias has values that no stored tensor gives"):
            stored_tensors(stage, checkpoint, parameters, APART["code2wav"])
        return
    stored_tensors(stage, checkpoint, parameters, APART["code2wav"])
    assert all(
        np.ptp(values) > 0
        for name, values in parameters.items()
        if name.endswith(("upsample_bias", "transposed.bias"))
    )
