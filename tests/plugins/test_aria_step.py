"""AriaStep makes the decisions of runtime.stages.aria.speak, row by row;
function and PyTorch op make those of the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.plugins.aria_step.reference import aria_step
from antiphon.runtime.stages.aria import Policy, adaptive, chunked, dual_track, need_table, speak

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

import onnx_ir as ir
from onnx_ir.passes import common

from antiphon.export.portable import _translations
from antiphon.plugins.aria_step.torch_op import aria_step as torch_aria_step
from antiphon.plugins.registry import ARIA_STEP
from antiphon.runtime.engines.onnxruntime.sessions import make_session

from .one_op import graph, run_function

TEXT, END, PAD, GROUPS, CODEBOOK = 210, 210, 211, 2, 64
# A row tells what it is made of: text id + 1, and the two codes as the digits of a number, or 0 for no frame.
TEXT_TABLE = np.stack([np.arange(TEXT + 2) + 1.0, np.zeros(TEXT + 2)], axis=1).astype(np.float32)
CODE_TABLE = np.stack(
    [
        np.zeros(GROUPS * CODEBOOK),
        [(code + 1) * 100**group for group in range(GROUPS) for code in range(CODEBOOK)],
    ],
    axis=1,
).astype(np.float32)
RATIOS = st.fractions(Fraction(1, 4), 6, max_denominator=12)
POLICIES = st.one_of(
    st.just(dual_track()),
    st.builds(chunked, st.integers(1, 6), st.integers(1, 6)),
    st.builds(adaptive, st.integers(1, 6), RATIOS),
)
LENGTHS = st.one_of(st.integers(0, 9), st.integers(1, 20).map(lambda count: 4 * count), st.integers(1, 200))
# ids that arrive before each step, over and over
ARRIVALS = st.lists(st.integers(0, 9), min_size=1, max_size=8)

Row = tuple[int | None, int | None]
"""(text id, number of the frame), None for nothing."""


def codes_of(frame: int) -> np.ndarray:
    return np.array([frame % CODEBOOK, frame // CODEBOOK], np.int64)


@dataclass
class Script:
    """What happens in an answer: rows in their order, and at which of them a frame is sampled.

    Would like to end after `natural` frames.
    """

    text: int
    natural: int
    summed: bool
    rows: list[Row] = field(default_factory=list)
    samples: list[tuple[int, bool]] = field(default_factory=list)
    """(rows fed before the sample, whether it may be the end)."""
    given: int = 0
    frames: int = 0

    def next(self) -> int | None:
        self.given += 1
        return self.given - 1 if self.given <= self.text else None

    def step(self, text_ids: list[int], may_end: bool) -> np.ndarray | None:
        """As the Talker does: frame and text are one row on the dual track, rows of their own otherwise."""
        frame = self.frames - 1 if self.frames else None
        if self.summed:
            (text,) = text_ids or [PAD]
            self.rows.append((text, frame))
        else:
            self.rows += ([(None, frame)] if frame is not None else []) + [(text, None) for text in text_ids]
        return self.sample(may_end)

    def sample(self, may_end: bool) -> np.ndarray | None:
        self.samples.append((len(self.rows), may_end))
        if may_end and self.frames >= self.natural:
            return None
        self.frames += 1
        return codes_of(self.frames - 1)


def spoken(policy: Policy, text: int, natural: int) -> Script:
    script = Script(text, natural, policy.end_anywhere)
    for _ in speak(policy, script, script, END, lambda _: 4000):
        pass
    return script


def stepped(
    policy: Policy, text: int, natural: int, arrivals: list[int], step: Callable[..., Any] = aria_step
) -> tuple[Script, np.ndarray]:
    """The same answer by AriaStep while the text arrives; checks that no step holds that could go on.

    Returns the last counters too.
    """
    script = Script(text, natural, policy.end_anywhere)
    need = need_table(policy, 2000)
    counters = np.zeros((1, 4), np.int64)
    codes = np.full((1, GROUPS), -1)
    ids = np.full((1, TEXT), -1)  # what has not arrived is no id
    arrived = 0
    for count in range(5000):
        arrived = min(text, arrived + arrivals[count % len(arrivals)] + (count % 16 == 15))
        ids[0, :arrived] = np.arange(arrived)
        complete = arrived == text and count % 3 == 0  # the end may be known later than the last id
        row, length, sample, may_end, present = step(
            need,
            ids,
            np.array([arrived]),
            np.array([complete]),
            codes,
            counters,
            TEXT_TABLE,
            CODE_TABLE,
            END,
            PAD,
            script.summed,
            policy.end_anywhere,
        )
        if not length[0]:
            assert not row.any() and not sample[0] and (present == counters).all()
            text_in, frames, ended, pending = counters[0]
            assert not ended and text_in == arrived and (not complete or text_in == 0)
            assert text_in < need[frames] and (script.summed or not pending)
            if complete:
                break  # a text of no tokens
        else:
            text_part, frame_part = (int(part) for part in row[0])
            frame = frame_part % 100 - 1 + CODEBOOK * (frame_part // 100 - 1) if frame_part else None
            script.rows.append((text_part - 1 if text_part else None, frame))
        counters = present
        if sample[0]:
            frame_codes = script.sample(bool(may_end[0]))
            if frame_codes is None:
                break
            codes = frame_codes[None]
    else:
        raise AssertionError("the answer never ended")
    return script, counters


@settings(max_examples=80, deadline=None)
@given(POLICIES, LENGTHS, st.integers(0, 250), ARRIVALS)
def test_rows_samples_and_holds_are_those_of_speak_however_the_text_arrives(
    policy: Policy, text: int, natural: int, arrivals: list[int]
) -> None:
    expected = spoken(policy, text, natural)
    found, counters = stepped(policy, text, natural, arrivals)
    assert found.rows == expected.rows
    assert found.samples == expected.samples
    # the sample that was the end counts as a frame that nobody makes
    is_over = len(expected.samples) > expected.frames
    assert counters[0, 1] == expected.frames + is_over


@settings(max_examples=10, deadline=None)
@given(POLICIES, st.integers(0, 30), st.integers(0, 40), ARRIVALS)
def test_the_function_speaks_as_the_reference_does(
    policy: Policy, text: int, natural: int, arrivals: list[int]
) -> None:
    def step(*arguments: Any) -> Any:
        return call_function(list(arguments[:8]), *arguments[8:])

    assert stepped(policy, text, natural, arrivals, step)[0].rows == spoken(policy, text, natural).rows


def test_chunks_of_four_are_rows_of_their_own_in_the_shipped_order() -> None:
    script, _ = stepped(chunked(4, 4), 5, 6, [5])
    text = [(place, None) for place in range(5)]
    frames = [(None, place) for place in range(6)]
    assert script.rows == [*text[:4], *frames[:4], text[4], (END, None), *frames[4:]]
    assert script.samples == [
        (4, False),
        (5, False),
        (6, False),
        (7, False),
        (10, True),
        (11, True),
        (12, True),
    ]


def test_the_dual_track_adds_text_and_frame_and_pads_after_the_end() -> None:
    script, _ = stepped(dual_track(), 2, 4, [2])
    assert script.rows == [(0, None), (1, 0), (END, 1), (PAD, 2), (PAD, 3)]
    assert all(may_end for _, may_end in script.samples)


def call_function(
    arrays: list[np.ndarray], end_id: int, pad_id: int, summed: bool, end_anywhere: bool
) -> Any:
    return run_function(
        "AriaStep",
        *arrays,
        end_id=int(end_id),
        pad_id=int(pad_id),
        summed=int(summed),
        end_anywhere=int(end_anywhere),
    )


def call_torch(arrays: list[np.ndarray], *attributes: Any) -> list[np.ndarray]:
    return [output.numpy() for output in torch_aria_step(*map(torch.from_numpy, arrays), *attributes)]


def any_state(
    seed: int,
    batch: int,
    hidden: int = 8,
    groups: int = 16,
    codebook: int = 32,
    vocab: int = 40,
    slots: int = 6,
) -> list[np.ndarray]:
    """Streams in states of every kind, also such as no answer comes to."""
    noise = np.random.default_rng(seed)
    need = np.sort(noise.integers(1, slots + 3, noise.integers(1, 9)))
    length = noise.integers(0, slots + 1, batch)
    counters = np.stack(
        [
            noise.integers(0, length + 1),
            noise.integers(0, 12, batch),
            noise.integers(0, 2, batch),
            noise.integers(0, 2, batch),
        ],
        axis=1,
    )
    ids = np.where(np.arange(slots) < length[:, None], noise.integers(0, vocab, (batch, slots)), -1)
    codes = np.where(counters[:, 3:] > 0, noise.integers(0, codebook, (batch, groups)), -1)
    tables = [noise.standard_normal((rows, hidden)).astype(np.float32) for rows in (vocab, groups * codebook)]
    return [need, ids, length, noise.random(batch) < 0.5, codes, counters, *tables]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.booleans(), st.booleans())
def test_function_and_torch_op_are_the_reference(
    seed: int, batch: int, summed: bool, end_anywhere: bool
) -> None:
    arrays = any_state(seed, batch)
    attributes = (3, 4, summed, end_anywhere)
    exact = aria_step(*arrays[:6], *(table.astype(np.float64) for table in arrays[6:]), *attributes)
    for outputs in (
        aria_step(*arrays, *attributes),
        call_function(arrays, *attributes),
        call_torch(arrays, *attributes),
    ):
        np.testing.assert_allclose(outputs[0], exact[0], rtol=0, atol=1e-5)
        for found, expected in zip(outputs[1:], exact[1:], strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_streams_of_a_batch_do_not_see_each_other() -> None:
    arrays = any_state(5, 6)
    together = aria_step(*arrays, 3, 4, False, False)
    for stream in range(6):
        alone = aria_step(
            arrays[0], *(array[stream : stream + 1] for array in arrays[1:6]), *arrays[6:], 3, 4, False, False
        )
        for whole, part in zip(together, alone, strict=True):
            np.testing.assert_array_equal(whole[stream : stream + 1], part)


@pytest.mark.parametrize("summed", [False, True])
def test_the_torch_op_can_be_traced_and_promises_what_it_gives(summed: bool) -> None:
    arguments = [torch.from_numpy(array) for array in any_state(1, 3)]
    torch.library.opcheck(
        torch_aria_step, (*arguments, 3, 4, summed, False), test_utils=("test_schema", "test_faketensor")
    )


def test_lowering_for_onnx_runtime_inlines_the_function() -> None:
    model = ir.serde.deserialize_model(graph("AriaStep", end_id=3, pad_id=4, summed=1, end_anywhere=0))
    common.InlinePass()(model)
    assert not model.functions and all(node.domain == "" for node in model.graph)
    arrays = any_state(9, 5)
    feeds = {name: array for (name, _), array in zip(ARIA_STEP.inputs, arrays, strict=True)}
    outputs = make_session(ir.to_proto(model).SerializeToString()).run(None, feeds)
    for found, expected in zip(outputs, aria_step(*arrays, 3, 4, True, False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_module_that_steps_is_exported_as_one_node() -> None:
    class Step(torch.nn.Module):
        def forward(self, *arguments: Any) -> Any:
            return torch_aria_step(*arguments, 3, 4, False, False)

    arguments = tuple(torch.from_numpy(array) for array in any_state(2, 3))
    exported = torch.onnx.export(
        torch.export.export(Step(), arguments),
        dynamo=True,
        opset_version=24,
        custom_translation_table=_translations(),
        verbose=False,
    )
    assert exported is not None
    (node,) = (node for node in exported.model.graph if node.domain == "ai.antiphon")
    assert node.op_type == "AriaStep"
    assert {name: attribute.as_int() for name, attribute in node.attributes.items()} == {
        "end_id": 3,
        "pad_id": 4,
        "summed": 0,
        "end_anywhere": 0,
    }
