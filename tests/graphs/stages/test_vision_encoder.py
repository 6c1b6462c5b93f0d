"""The vision encoder against both families' reference classes with the same random
weights, and its ONNX export.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from antiphon.graphs.config import OmniConfig, VisionConfig
from antiphon.graphs.stage import Stage
from antiphon.graphs.stages.vision_encoder import vision_encoder_stage
from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.vision.vision_layout import vision_feeds

from ..module_pair import (
    FakeCheckpoint,
    check_example_axes,
    exported_session,
    load_module,
    load_reference_weights,
    randomise,
    relative_error,
)

PREFIX = "thinker.visual."
TINY = dict(
    depth=3,
    hidden_size=32,
    intermediate_size=40,
    num_heads=2,
    in_channels=3,
    patch_size=4,
    temporal_patch_size=2,
    spatial_merge_size=2,
)
TINY |= dict(num_position_embeddings=64, out_hidden_size=24)
SHAPES = [
    dict(deepstack_visual_indexes=(0,), hidden_size=48, num_heads=4),
    dict(deepstack_visual_indexes=(1, 2), hidden_size=96, num_heads=3, num_position_embeddings=2304),
    dict(deepstack_visual_indexes=(2, 0), spatial_merge_size=3, patch_size=2, temporal_patch_size=1),
    dict(deepstack_visual_indexes=(), hidden_size=64, num_heads=4, hidden_act="gelu", depth=1),
]
GRIDS = [(1, 6, 6), (1, 12, 18), (1, 6, 18), (1, 30, 12), (2, 6, 12), (5, 12, 6)]


def make_stage(**changes: Any) -> Stage:
    return vision_encoder_stage(
        cast(OmniConfig, SimpleNamespace(thinker=SimpleNamespace(vision=VisionConfig(**{**TINY, **changes}))))
    )


def reference(seed: int = 0, **changes: Any) -> Any:
    modeling = pytest.importorskip("transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe")
    config = modeling.Qwen3OmniMoeVisionEncoderConfig(**{**TINY, **changes})
    config._attn_implementation = "eager"
    encoder = modeling.Qwen3OmniMoeVisionEncoder(config).eval()
    randomise(encoder, seed)
    return encoder


def reference_3_5(seed: int = 0, **changes: Any) -> Any:
    modeling = pytest.importorskip("transformers.models.qwen3_5_moe.modeling_qwen3_5_moe")
    config = modeling.Qwen3_5MoeVisionConfig(**{**TINY, **changes})
    config._attn_implementation = "eager"
    encoder = modeling.Qwen3_5MoeVisionModel(config).eval()
    randomise(encoder, seed)
    return encoder


def patches_of(grid: tuple[int, int, int], patch_dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(
        (grid[0] * grid[1] * grid[2], patch_dim), dtype=np.float32
    )


def run(module: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    with torch.no_grad():
        return [output.numpy() for output in module(*(torch.from_numpy(feed) for feed in feeds.values()))]


def run_reference(
    encoder: Any, patches: list[np.ndarray], grids: list[tuple[int, int, int]]
) -> list[np.ndarray]:
    with torch.no_grad():
        result = encoder(torch.from_numpy(np.concatenate(patches)), grid_thw=torch.tensor(grids))
    features = getattr(result, "deepstack_features", None)
    deepstack = [torch.stack(features).numpy()] if features else []
    return [result.pooler_output.numpy(), *deepstack]


def assert_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    assert max(map(relative_error, found, expected)) < 1e-5


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("changes", SHAPES)
def test_features_and_deepstack_equal_the_reference_for_images_and_videos(
    changes: dict[str, Any], seed: int
) -> None:
    stage, encoder = make_stage(**changes), reference(seed, **changes)
    module = load_reference_weights(stage, encoder, PREFIX)
    for grid in GRIDS:
        patches = patches_of(grid, stage.inputs[0].shape[2], seed)
        found = run(
            module,
            vision_feeds(
                patches,
                grid,
                stage.constants["spatial_merge_size"],
                stage.constants["num_position_embeddings"],
            ),
        )
        assert len(found) == len(stage.outputs)
        assert_equal(found, run_reference(encoder, [patches], [grid]))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "changes",
    [{key: value for key, value in shape.items() if key != "deepstack_visual_indexes"} for shape in SHAPES],
)
def test_features_equal_the_reference_of_qwen3_5_for_images_and_videos(
    changes: dict[str, Any], seed: int
) -> None:
    stage, encoder = make_stage(**changes), reference_3_5(seed, **changes)
    module = load_reference_weights(stage, encoder, PREFIX)
    assert [output.name for output in stage.outputs] == ["features"]
    for grid in GRIDS:
        patches = patches_of(grid, stage.inputs[0].shape[2], seed)
        found = run(
            module,
            vision_feeds(
                patches,
                grid,
                stage.constants["spatial_merge_size"],
                stage.constants["num_position_embeddings"],
            ),
        )
        assert_equal(found, run_reference(encoder, [patches], [grid]))


def test_rotary_base_is_that_of_the_configuration() -> None:
    theta = 500.0
    stage, encoder = (
        make_stage(rope_theta=theta),
        reference_3_5(rope_parameters={"rope_type": "axial", "rope_theta": theta}),
    )
    patches = patches_of((1, 12, 18), stage.inputs[0].shape[2])
    found = run(load_reference_weights(stage, encoder, PREFIX), vision_feeds(patches, (1, 12, 18), 2, 64))
    assert_equal(found, run_reference(encoder, [patches], [(1, 12, 18)]))


def test_weights_of_qwen3_5_are_read_under_the_names_of_the_first_family_too() -> None:
    stage, encoder = make_stage(), reference_3_5()
    checkpoint = FakeCheckpoint(encoder, PREFIX)
    names = {
        "merger.norm.": "merger.ln_q.",
        "merger.linear_fc1.": "merger.mlp.0.",
        "merger.linear_fc2.": "merger.mlp.2.",
    }
    for new, old in names.items():
        for part in ("weight", "bias"):
            checkpoint.tensors[f"{PREFIX}{old}{part}"] = checkpoint.tensors.pop(f"{PREFIX}{new}{part}")
    patches = patches_of((2, 6, 8), stage.inputs[0].shape[2])
    assert_equal(
        run(load_module(stage, checkpoint), vision_feeds(patches, (2, 6, 8), 2, 64)),
        run_reference(encoder, [patches], [(2, 6, 8)]),
    )


def test_features_equal_the_reference_for_several_pictures_one_after_the_other() -> None:
    stage, encoder = make_stage(**SHAPES[1]), reference(5, **SHAPES[1])
    module = load_reference_weights(stage, encoder, PREFIX)
    grids = [(1, 4, 10), (3, 2, 2), (1, 14, 6)]
    patches = [patches_of(grid, stage.inputs[0].shape[2], number) for number, grid in enumerate(grids)]
    found = [run(module, vision_feeds(*picture, 2, 2304)) for picture in zip(patches, grids, strict=True)]
    joined = [
        np.concatenate([features for features, _ in found]),
        np.concatenate([deepstack for _, deepstack in found], axis=1),
    ]
    assert_equal(joined, run_reference(encoder, patches, grids))


def test_features_equal_the_reference_when_small_activations_show_the_epsilon_of_the_norms() -> None:
    stage, encoder = make_stage(**SHAPES[1]), reference(**SHAPES[1])
    for name, parameter in encoder.named_parameters():
        if "norm" not in name and not name.startswith("merger"):
            parameter.data *= 1e-3
    module, patches = (
        load_reference_weights(stage, encoder, PREFIX),
        patches_of((1, 6, 8), stage.inputs[0].shape[2]),
    )
    assert_equal(
        run(module, vision_feeds(patches, (1, 6, 8), 2, 2304)), run_reference(encoder, [patches], [(1, 6, 8)])
    )


def test_frames_do_not_see_each_other() -> None:
    stage = make_stage()
    module = stage.make_module().eval()
    randomise(module, seed=2)
    patches = patches_of((3, 4, 4), stage.inputs[0].shape[2])
    whole = run(module, vision_feeds(patches, (3, 4, 4), 2, 64))[0]
    alone = run(module, vision_feeds(patches[16:32], (1, 4, 4), 2, 64))[0]
    assert relative_error(whole[4:8], alone) < 1e-5


def test_meta_device_allocates_nothing() -> None:
    with torch.device("meta"):
        module = make_stage().make_module()
    assert all(parameter.is_meta for parameter in module.parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(num_heads=3), "3 heads"),
        (dict(num_heads=16), "divisible by 4"),
        (dict(num_position_embeddings=65), "expected a square"),
        (dict(deepstack_visual_indexes=(3,)), r"0 \.\. 2"),
        (dict(deepstack_visual_indexes=(1, 1)), "different blocks"),
        (dict(hidden_act="relu"), "'relu'"),
    ],
)
def test_stage_is_refused_when_the_configuration_cannot_be_an_encoder(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(AntiphonError, match=words):
        make_stage(**changes)


def test_example_shows_every_axis_with_a_size_of_its_own() -> None:
    check_example_axes(make_stage())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("indexes", [(), (0, 1)])
def test_export_with_dynamic_axes_gives_the_modules_features_at_other_sizes(
    indexes: tuple[int, ...], tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    stage = make_stage(depth=2, deepstack_visual_indexes=indexes)
    module = stage.make_module().eval()
    randomise(module, seed=3)
    session = exported_session(stage, module, tmp_path)
    for grid in GRIDS[:1] + GRIDS[-2:] + [(1, 2, 2)]:
        feeds = vision_feeds(patches_of(grid, stage.inputs[0].shape[2]), grid, 2, 64)
        assert_equal(session.run(None, feeds), run(module, feeds))
