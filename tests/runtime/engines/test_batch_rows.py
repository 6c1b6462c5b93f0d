"""Batches from rows and back."""

from __future__ import annotations

import numpy as np

from antiphon.runtime.bundle.specs import StageInterface, TensorSpec
from antiphon.runtime.engines.batch_rows import join_outputs, join_rows, split_rows

INTERFACE = StageInterface(
    (
        TensorSpec("ids", "int64", ("batch", "tokens")),
        TensorSpec("positions", "float32", (3, "batch", "tokens")),
        TensorSpec("query_length", "int64", ("batch",)),
        TensorSpec("features", "float32", ("features", 2)),
        TensorSpec("feature_index", "int64", ("features",)),
        TensorSpec("output_index", "int64", ("rows",)),
        TensorSpec("noise", "float32", ("rows",)),
    ),
    (TensorSpec("token", "int64", ("rows",)), TensorSpec("hidden", "float32", ("batch", "tokens", 1))),
)


def row(tokens: int, features: list[int], number: float) -> dict[str, np.ndarray]:
    return {
        "ids": np.full((1, tokens), int(number)),
        "positions": np.full((3, 1, tokens), number, np.float32),
        "query_length": np.array([tokens]),
        "features": np.full((len(features), 2), number, np.float32),
        "feature_index": np.array(features, np.int64),
        "output_index": np.array([tokens - 1]),
        "noise": np.array([number], np.float32),
    }


def test_shorter_rows_are_padded_and_indices_count_over_the_whole_batch() -> None:
    joined = join_rows(INTERFACE, [row(3, [0, 2], 1), row(2, [1], 2), row(1, [], 3)])
    assert joined["ids"].tolist() == [[1, 1, 1], [2, 2, 0], [3, 0, 0]] and joined["positions"].shape == (
        3,
        3,
        3,
    )
    assert joined["feature_index"].tolist() == [0, 2, 4] and joined["features"][:, 0].tolist() == [1, 1, 2]
    assert joined["output_index"].tolist() == [2, 4, 6] and joined["noise"].tolist() == [1, 2, 3]


def test_splitting_gives_the_rows_back_without_their_padding() -> None:
    rows = [row(3, [0, 2], 1), row(1, [], 2), row(2, [1], 3)]
    for expected, found in zip(rows, split_rows(INTERFACE, join_rows(INTERFACE, rows)), strict=True):
        assert found.keys() == expected.keys()
        assert all(
            np.array_equal(found[name], expected[name]) and found[name].dtype == expected[name].dtype
            for name in found
        )


def test_outputs_go_where_the_batch_asks_for_them_whatever_the_order_of_its_rows() -> None:
    feeds = join_rows(INTERFACE, [row(2, [], 1), row(2, [], 2)])
    feeds |= {"output_index": np.array([3, 0, 2, 1]), "noise": np.array([23, 10, 22, 11], np.float32)}
    rows = split_rows(INTERFACE, feeds)
    assert [own["output_index"].tolist() for own in rows] == [[0, 1], [1, 0]]
    outputs = [
        {"token": own["noise"].astype(np.int64), "hidden": own["positions"][0][..., None]} for own in rows
    ]
    joined = join_outputs(INTERFACE, feeds, outputs)
    assert joined["token"].tolist() == [23, 10, 22, 11] and joined["hidden"][:, 0, 0].tolist() == [1, 2]


def test_padding_tokens_have_outputs_of_zeros() -> None:
    feeds = join_rows(INTERFACE, [row(3, [], 1), row(1, [], 2)])
    outputs = [{"hidden": own["positions"][0][..., None]} for own in split_rows(INTERFACE, feeds)]
    assert join_outputs(INTERFACE, feeds, outputs)["hidden"][..., 0].tolist() == [[1, 1, 1], [2, 0, 0]]
