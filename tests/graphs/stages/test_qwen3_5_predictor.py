"""The code predictor of Qwen3.5-Omni, which has no public reference,
against a float64 formula of whole frames, teacher-forced.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from antiphon.graphs.config import OmniConfig
from antiphon.graphs.layers.decoder_specs import greedy_sampling
from antiphon.graphs.stages.predictor import predictor_stage
from antiphon.runtime.bundle.errors import AntiphonError

from ..decoder_formula import decoder_layer, zero_centred_norm
from ..decoder_pair import Runner
from ..module_pair import check_example_axes, load_module, relative_error
from ..qwen3_5_pair import CODEBOOK, CODEC_VOCAB, GROUPS, VARIANTS, Tensors, decoder, omni_config

TOLERANCE = 1e-5
PREFIX = "talker.code_predictor"
PROJECTION = f"{PREFIX}.model.talker_projection"
BASE = decoder(("full_attention",) * 2, hidden_size=28)
PREDICTORS = {
    "smaller than the Talker": dataclasses.replace(BASE, hidden_size=18),
    "of the Talker's size, bias, one cache head": dataclasses.replace(
        BASE, attention_bias=True, num_key_value_heads=1
    ),
}


def make_config(name: str) -> OmniConfig:
    config = omni_config(VARIANTS[next(iter(VARIANTS))])
    assert config.talker is not None
    predictor = dataclasses.replace(
        PREDICTORS[name], vocab_size=CODEBOOK, layer_types=(), intermediate_size=30
    )
    return dataclasses.replace(config, talker=dataclasses.replace(config.talker, predictor=predictor))


def make_tensors(config: OmniConfig, projection: bool = True) -> dict[str, np.ndarray]:
    assert config.talker is not None
    predictor, rows = config.talker.predictor, config.talker.text.hidden_size
    size, attended, cached = (
        predictor.hidden_size,
        predictor.num_attention_heads * predictor.head_dim,
        predictor.num_key_value_heads * predictor.head_dim,
    )
    shapes: dict[str, tuple[int, ...]] = {
        "talker.model.codec_embedding.weight": (CODEC_VOCAB, rows),
        f"{PREFIX}.model.norm.weight": (size,),
    }
    for group in range(GROUPS - 1):
        shapes |= {
            f"{PREFIX}.model.codec_embedding.{group}.weight": (CODEBOOK, rows),
            f"{PREFIX}.lm_head.{group}.weight": (CODEBOOK, size),
        }
    for layer in range(predictor.num_hidden_layers):
        at = f"{PREFIX}.model.layers.{layer}"
        shapes |= {f"{at}.{name}_layernorm.weight": (size,) for name in ("input", "post_attention")}
        shapes |= {f"{at}.self_attn.{name}_norm.weight": (predictor.head_dim,) for name in "qk"}
        outputs = {"q": 2 * attended, "k": cached, "v": cached}
        shapes |= {f"{at}.self_attn.{name}_proj.weight": (width, size) for name, width in outputs.items()}
        shapes |= {
            f"{at}.self_attn.o_proj.weight": (size, attended),
            f"{at}.mlp.down_proj.weight": (size, predictor.intermediate_size),
        }
        shapes |= {
            f"{at}.mlp.{name}_proj.weight": (predictor.intermediate_size, size) for name in ("gate", "up")
        }
        if predictor.attention_bias:
            shapes |= {
                f"{at}.self_attn.{name}_proj.bias": (width,)
                for name, width in (outputs | {"o": size}).items()
            }
    if projection:
        shapes |= {f"{PROJECTION}.weight": (size, rows), f"{PROJECTION}.bias": (size,)}
    random = np.random.default_rng(0)
    return {
        name: (random.normal(size=shape) * (0.4 if len(shape) == 1 else shape[-1] ** -0.5)).astype(np.float32)
        for name, shape in shapes.items()
    }


def frame(config: OmniConfig, batch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A Talker row [batch, hidden] and the codes [batch, groups] that are forced."""
    assert config.talker is not None
    random = np.random.default_rng(seed)
    return random.normal(size=(batch, config.talker.text.hidden_size)).astype(np.float32), random.integers(
        0, CODEBOOK, (batch, GROUPS)
    )


def run_frame(
    stage: Any, module: Any, hidden: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """logits [batch, steps, codebook], the embeddings [batch, steps, talker hidden] of the codes but the
    last, greedy tokens [batch, steps].
    """
    runner, found = Runner(stage, module, len(codes), capacity=GROUPS), []
    for step in range(GROUPS - 1):
        rows = hidden[:, None] if step == 0 else hidden[:, None][:, :0]
        feeds = {
            "hidden": rows,
            "code": codes[:, step],
            "step": np.array([step]),
            "past_length": np.full(len(codes), step + 1 if step else 0),
        }
        found.append(runner(feeds | greedy_sampling(len(codes), CODEBOOK)))
    return tuple(
        np.stack([result[name] for result in found], axis=1) for name in ("logits", "code_row", "token")
    )  # type: ignore[return-value]


def formula(
    config: OmniConfig, tensors: dict[str, np.ndarray], hidden: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """logits [steps, codebook] and rows [steps, talker hidden] of one frame:
    all its rows at once, head s at row s + 1.
    """
    assert config.talker is not None
    predictor = config.talker.predictor
    tables = [
        "talker.model.codec_embedding.weight",
        *(f"{PREFIX}.model.codec_embedding.{group}.weight" for group in range(GROUPS - 1)),
    ]
    rows = np.stack([tensors[tables[step]][codes[step]] for step in range(GROUPS - 1)]).astype(np.float64)
    x = np.concatenate([hidden[None], rows])
    if f"{PROJECTION}.weight" in tensors:
        x = x @ tensors[f"{PROJECTION}.weight"].astype(np.float64).T + tensors[f"{PROJECTION}.bias"]
    for layer in range(predictor.num_hidden_layers):
        x = decoder_layer(
            x, tensors, f"{PREFIX}.model.layers.{layer}", predictor, np.arange(GROUPS)[None].repeat(3, 0)
        )
    normed = zero_centred_norm(x, tensors[f"{PREFIX}.model.norm.weight"], predictor.rms_norm_eps)
    return np.stack(
        [tensors[f"{PREFIX}.lm_head.{step}.weight"] @ normed[step + 1] for step in range(GROUPS - 1)]
    ), rows


@pytest.mark.parametrize(
    ("name", "projection"), [(name, True) for name in PREDICTORS] + [(list(PREDICTORS)[1], False)]
)
@pytest.mark.parametrize("batch", [1, 3])
def test_all_steps_of_a_frame_equal_the_formula(name: str, projection: bool, batch: int) -> None:
    """A checkpoint without a projection feeds the Talker's rows as they are."""
    config = make_config(name)
    tensors, stage = make_tensors(config, projection), predictor_stage(config)
    module = load_module(stage, Tensors(tensors))
    hidden, codes = frame(config, batch, seed=batch)
    logits, rows, tokens = run_frame(stage, module, hidden, codes)
    for row in range(batch):
        expected, embedded = formula(config, tensors, hidden[row], codes[row])
        assert relative_error(logits[row], expected) < TOLERANCE
        np.testing.assert_array_equal(rows[row], embedded.astype(np.float32))
    np.testing.assert_array_equal(tokens, logits.argmax(-1))
    assert {
        tensor for source in stage.weights(Tensors(tensors)).values() for tensor in source.tensors
    } == set(tensors)


def test_missing_projection_between_rows_of_other_sizes_is_refused() -> None:
    config = make_config(next(iter(PREDICTORS)))
    with pytest.raises(AntiphonError, match=r"talker_projection\.weight is missing, expected \[18, 28\]"):
        predictor_stage(config).weights(Tensors(make_tensors(config, projection=False)))


def test_sizes_of_the_stage_are_those_of_the_talkers_rows() -> None:
    stage = predictor_stage(make_config(next(iter(PREDICTORS))))
    check_example_axes(stage)
    shapes = {spec.name: spec.shape for spec in (*stage.inputs, *stage.outputs)}
    assert (
        shapes["hidden"] == ("batch", "hiddens", 28)
        and shapes["code_row"] == ("batch", 28)
        and stage.size("hidden_size") == 28
    )
    assert {state.shape for state in stage.states} == {("batch", 2, "capacity", 32)}
