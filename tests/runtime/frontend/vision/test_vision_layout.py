"""Where patches lie: merge order, rotary positions and the bilinear position table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.vision.vision_layout import vision_feeds, vision_layout, vision_spans

GRIDS = st.tuples(
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 3),
    st.sampled_from([4, 64, 2304]),
)


def test_patches_run_through_a_block_before_the_next_block() -> None:
    places = vision_layout((1, 4, 4), 2, 64)["rotary_positions"].tolist()
    assert places[:8] == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]
    assert sorted(places) == [[row, column] for row in range(4) for column in range(4)]


@settings(max_examples=60, deadline=None)
@given(GRIDS)
def test_positions_interpolate_the_table_with_its_corners_on_the_corners(
    size: tuple[int, int, int, int, int],
) -> None:
    frames, block_rows, block_columns, merge, places = size
    height, width, side = block_rows * merge, block_columns * merge, round(places**0.5)
    layout = vision_layout((frames, height, width), merge, places)
    rows, columns = layout["rotary_positions"].T
    # a bilinear function of the place: interpolated exactly
    table = np.stack(np.divmod(np.arange(places), side), axis=1).astype(np.float64)
    found = (table[layout["position_index"]] * layout["position_weight"][:, :, None]).sum(1)
    expected = np.stack(
        (rows * (side - 1) / max(height - 1, 1), columns * (side - 1) / max(width - 1, 1)), axis=1
    )
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert layout["position_index"].min() >= 0 and layout["position_index"].max() < places
    np.testing.assert_allclose(layout["position_weight"].sum(1), 1, atol=1e-6)
    assert [value.dtype.name for value in layout.values()] == ["int64", "float32", "int64"]
    assert all(len(value) == height * width for value in layout.values())


@settings(max_examples=30, deadline=None)
@given(GRIDS)
def test_layout_equals_the_reference(size: tuple[int, int, int, int, int]) -> None:
    torch = pytest.importorskip("torch")
    vision_utils = pytest.importorskip("transformers.vision_utils")
    frames, block_rows, block_columns, merge, places = size
    grid = (frames, block_rows * merge, block_columns * merge)
    layout, tensor = vision_layout(grid, merge, places), torch.tensor([grid])
    index, weight = vision_utils.get_vision_interpolation_indices_and_weights(
        tensor,
        num_grid_per_side=round(places**0.5),
        mode="bilinear",
        align_corners=True,
        spatial_merge_size=merge,
    )
    positions = vision_utils.get_vision_position_ids(tensor, merge)
    for name, expected in {
        "position_index": index,
        "position_weight": weight,
        "rotary_positions": positions,
    }.items():
        np.testing.assert_allclose(np.tile(layout[name], (frames, 1)), expected.numpy(), atol=1e-6)


def test_feeds_split_the_patches_into_frames() -> None:
    patches = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(-1, 3)
    feeds = vision_feeds(patches, (2, 4, 6), 2, 64)
    assert list(feeds) == ["pixels", "position_index", "position_weight", "rotary_positions"]
    assert feeds["pixels"].shape == (2, 24, 3)
    np.testing.assert_array_equal(feeds["pixels"].reshape(-1, 3), patches)


@pytest.mark.parametrize("grid", [(1, 3, 4), (1, 4, 5), (0, 4, 4), (1, 0, 4), (1, -2, 4)])
def test_a_grid_without_whole_blocks_is_refused(grid: tuple[int, int, int]) -> None:
    with pytest.raises(AntiphonError, match="no whole blocks of 2 x 2"):
        vision_layout(grid, 2, 64)


@pytest.mark.parametrize("shape", [(15, 3), (17, 3), (16,)])
def test_patches_that_do_not_fill_the_grid_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AntiphonError, match="do not fill a grid of 1 x 4 x 4"):
        vision_feeds(np.zeros(shape, np.float32), (1, 4, 4), 2, 64)


@pytest.mark.parametrize(
    ("most", "spans"), [(1, [(0, 1), (1, 2), (2, 3)]), (48, [(0, 2), (2, 3)]), (10_000, [(0, 3)])]
)
def test_a_video_is_split_between_temporal_patches(most: int, spans: list[tuple[int, int]]) -> None:
    assert list(vision_spans((3, 4, 6), max_patches=most)) == spans
