"""The inputs and outputs of each stage that the runtime uses, as one table, and the check of a bundle against
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .errors import BrokenBundle
from .specs import StageEntry, StateSpec, TensorSpec

_TOKENS = "positions float32 3 batch tokens; query_length int64 batch; past_length int64 batch"
_ROWS = (
    "output_index int64 rows; noise float32 rows; temperature float32 rows; top_k int64 rows; "
    "top_p float32 rows; repetition_penalty float32 rows"
)
_PARTS = (
    "hidden float32 hiddens HIDDEN; hidden_index int64 hiddens; codec_ids int64 batch tokens; "
    "frame_index int64 frames"
)
TENSORS: dict[str, tuple[str, str]] = {
    "audio_encoder": (
        "chunks float32 chunks MELS frames; window_index int64 windows window_tokens; "
        "window_length int64 windows; output_index int64 tokens",
        "features float32 tokens HIDDEN",
    ),
    "vision_encoder": (
        "pixels float32 frames patches PIXELS; position_index int64 patches 4; "
        "position_weight float32 patches 4; rotary_positions int64 patches 2",
        "features float32 visuals HIDDEN; ?deepstack float32 LAYERS visuals HIDDEN",
    ),
    "thinker": (
        f"input_ids int64 batch tokens; {_TOKENS}; features float32 features HIDDEN; "
        "feature_index int64 features; ?deepstack float32 LAYERS visuals HIDDEN; "
        f"?deepstack_index int64 visuals; {_ROWS}; penalised bool rows TEXT; suppressed bool rows TEXT",
        "token int64 rows; logits float32 rows TEXT; hidden float32 batch tokens HIDDEN",
    ),
    "talker": (
        f"text_ids int64 batch tokens; {_PARTS}; ?frame_rows float32 frames TALKER; ?frame_codes int64 "
        f"frames GROUPS; {_TOKENS}; {_ROWS}; penalised bool rows CODEC; suppressed bool rows CODEC",
        "token int64 rows; logits float32 rows CODEC; output_hidden float32 rows TALKER",
    ),
    "predictor": (
        "hidden float32 batch TALKER; code0 int64 batch; noise float32 batch RESIDUALS; "
        "temperature float32 batch; top_k int64 batch; top_p float32 batch",
        "codes int64 batch GROUPS; frame_row float32 batch TALKER; logits float32 batch RESIDUALS CODES",
    ),
    "code2wav": ("codes int64 batch frames GROUPS; past_length int64 batch", "audio float32 batch samples"),
    "codec_encoder": (
        "waveform float32 batch samples; waveform_length int64 batch",
        "codes int64 batch frames GROUPS; latents float32 batch frames LATENTS",
    ),
}
"""Inputs and outputs by stage: name, dtype, axes. An axis in capitals is a size that all stages share; `?`
marks a tensor that some models lack.
"""
GROWS = "capacity"
"""The axis of a kv state that grows."""


def shared_sizes(stages: Mapping[str, StageEntry]) -> dict[str, int]:
    """The sizes that the stages of a bundle share, by their name in TENSORS.

    Raises AntiphonError if an entry is listed under another stage's name, and if two stages, or an entry and
    TENSORS, disagree.
    """
    sizes: dict[str, int] = {}
    for name, entry in stages.items():
        if entry.name != name:
            raise BrokenBundle(
                f"The manifest has the stage {entry.name:.60} where {name:.60} was expected; "
                "build the bundle again."
            )
        if name in TENSORS:
            for specs, text in zip((entry.inputs, entry.outputs), TENSORS[name], strict=True):
                _compare(name, specs, text, sizes)
        for state in entry.states:
            _check_state(name, state)
    return sizes


def _compare(stage: str, specs: Sequence[TensorSpec], text: str, sizes: dict[str, int]) -> None:
    expected = {words[0].lstrip("?"): words for words in map(str.split, text.split(";"))}
    found = {spec.name: spec for spec in specs}
    wrong = [
        name for name, words in expected.items() if name not in found and not words[0].startswith("?")
    ] + [name for name in found if name not in expected]
    if wrong or len(found) < len(specs):
        raise BrokenBundle(
            f"Stage {stage} has other tensors than this Antiphon runs it with ({', '.join(wrong)[:100]}); "
            "build the bundle again."
        )
    for name, spec in found.items():
        _, dtype, *axes = expected[name]
        is_fitting = spec.dtype == dtype and len(spec.shape) == len(axes)
        for axis, size in zip(axes, spec.shape, strict=False):
            if axis.isupper():
                is_fitting = (
                    is_fitting and isinstance(size, int) and size > 0 and sizes.setdefault(axis, size) == size
                )
            else:
                is_fitting = is_fitting and size == (int(axis) if axis.isdigit() else axis)
        if not is_fitting:
            known = [sizes.get(axis, axis) for axis in axes]
            raise BrokenBundle(
                f"Stage {stage} has the tensor {name} of {spec.dtype:.20} {str(list(spec.shape)):.60}, "
                f"expected {dtype} {known}; build the bundle again."
            )


def _check_state(stage: str, state: StateSpec) -> None:
    """Check that a state has one batch axis, where the entry says, and a growing axis only if it is of kind
    kv.
    """
    symbols = [axis for axis in state.shape if isinstance(axis, str)]
    expected = sorted(["batch", GROWS] if state.kind == "kv" else ["batch"])
    if (
        sorted(symbols) != expected
        or not 0 <= state.batch_axis < len(state.shape)
        or state.shape[state.batch_axis] != "batch"
    ):
        raise BrokenBundle(
            f"Stage {stage} has the {state.kind} state {state.name:.60} of {str(list(state.shape)):.60} with "
            f"the batch on axis {state.batch_axis}, expected the axes {' and '.join(expected)} once each; "
            "build the bundle again."
        )
