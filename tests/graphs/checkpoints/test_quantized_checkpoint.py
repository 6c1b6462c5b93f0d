"""Quantised checkpoints are named with their method and bits, by plan and build alike,
and told where the way out is.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.graphs.checkpoints.checkpoint import Checkpoint
from antiphon.graphs.checkpoints.quantized_checkpoint import describe, refuse_quantized_tensors
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.runtime.bundle.errors import AntiphonError

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
GROUP = {
    "targets": ["Linear"],
    "input_activations": {"num_bits": 8, "type": "int"},
    "weights": {"num_bits": 4, "type": "int", "group_size": 32},
}


@pytest.mark.parametrize(
    ("entry", "method", "bits"),
    [
        (AWQ, "AWQ", (4,)),
        ({"quant_method": "gptq", "bits": 8, "desc_act": False}, "GPTQ", (8,)),
        ({"quant_method": "auto-round", "bits": 2}, "AutoRound", (2,)),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": GROUP},
            },
            "compressed-tensors (pack-quantized)",
            (4,),
        ),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "FP8", (8,)),
        ({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}, "FP8 (in blocks)", (8,)),
        ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, "FP8 of FBGEMM", (8,)),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "ModelOpt (NVFP4)", (4,)),
        (
            {
                "producer": {"name": "modelopt"},
                "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "INT4"},
            },
            "ModelOpt (FP8)",
            (8,),
        ),
        (
            {
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "load_in_8bit": False,
                "bnb_4bit_quant_type": "nf4",
            },
            "bitsandbytes (nf4)",
            (4,),
        ),
        ({"load_in_8bit": True}, "bitsandbytes", (8,)),
        ({"group_size": 64, "bits": 4}, "MLX", (4,)),
        ({"group_size": 64, "bits": 4, "mode": "affine", "thinker.lm_head": {"bits": 8}}, "MLX", (4, 8)),
        (
            {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
            "torchao",
            (4,),
        ),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 3}}}, "HQQ", (3,)),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}, "quark", (8,)),
        ({"quant_method": "brand_new"}, "brand_new", ()),
        ({"quant_method": ["awq"]}, "an unnamed method", ()),
        ("awq", "AWQ", ()),
        (7, "an unnamed method", ()),
    ],
)
def test_a_configuration_names_its_method_and_the_bits_of_its_weights(
    entry: Any, method: str, bits: tuple[int, ...]
) -> None:
    assert describe(entry) == (method, bits)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        "",
        {"quant_method": "bitsandbytes", "load_in_4bit": False, "load_in_8bit": False},
        {"quant_algo": None},
    ],
)
def test_a_configuration_that_switches_it_off_is_none(entry: Any) -> None:
    assert describe(entry) == ("", ())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
KEYS = st.sampled_from(
    [
        "quant_method",
        "bits",
        "quantization",
        "quant_algo",
        "producer",
        "mode",
        "format",
        "load_in_4bit",
        "weight_block_size",
    ]
)


@given(st.dictionaries(KEYS, JSON))
def test_any_configuration_is_described_in_few_words(entry: dict[str, Any]) -> None:
    method, bits = describe(entry)
    assert len(method) < 120 and method.isprintable() and all(1 <= width <= 8 for width in bits)


def write(source: Path, folder: Path, section: str, name: str, entry: Any) -> Path:
    config = json.loads((source / "config.json").read_text())
    node = config
    for key in section.split(".") if section else ():
        node = node[key]
    node[name] = entry
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "section",
    [
        "",
        "thinker_config",
        "thinker_config.text_config",
        "talker_config",
        "talker_config.code_predictor_config",
    ],
)
@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("quantization_config", AWQ),
        ("compression_config", AWQ),
        ("quantization", {"group_size": 64, "bits": 4}),
    ],
)
def test_reading_a_configuration_refuses_it_wherever_it_says_so(
    tiny_checkpoint: Path, tmp_path: Path, section: str, name: str, entry: Any
) -> None:
    write(tiny_checkpoint, tmp_path, section, name, entry)
    where = f"{section}.{name}".lstrip(".")[-30:]
    with pytest.raises(
        AntiphonError,
        match=(
            rf"config.json is of a checkpoint quantised by (AWQ|MLX) to 4 bits \(.*{where}\); "
            r".* use the checkpoint before"
        ),
    ):
        read_config(tmp_path)


def test_plan_refuses_it_from_config_json_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from antiphon.export.plan import plan

    with pytest.raises(AntiphonError, match="quantised by AWQ to 4 bits"):
        plan(write(tiny_checkpoint, tmp_path, "thinker_config", "quantization_config", AWQ))


def test_an_empty_entry_and_a_codec_that_quantises_are_no_quantised_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    write(tiny_checkpoint, tmp_path, "", "quantization_config", {})
    write(tmp_path, tmp_path, "code2wav_config", "quantization", {"n_q": 16})
    assert read_config(tmp_path) == read_config(tiny_checkpoint)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "hf_quant_config.json",
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}},
            r"ModelOpt \(NVFP4\) to 4 bits",
        ),
        ("quantize_config.json", {"bits": 4, "group_size": 128}, "GPTQ to 4 bits"),
        ("quant_config.json", {"w_bit": 4, "zero_point": True}, "AWQ to 4 bits"),
    ],
)
def test_a_file_beside_config_json_may_say_so_alone(
    tiny_checkpoint: Path, tmp_path: Path, name: str, content: Any, said: str
) -> None:
    shutil.copy(tiny_checkpoint / "config.json", tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(AntiphonError, match=f"quantised by {said} .{name}"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        (("qweight", "qzeros", "scales"), "AWQ or GPTQ"),
        (("qweight", "qzeros", "scales", "g_idx"), "GPTQ"),
        (("weight", "weight_scale_inv"), "FP8 in blocks"),
        (("weight_packed", "weight_scale"), "compressed-tensors"),
        (("weight", "weight_scale"), "FP8 or INT8"),
        (("weight", "weight_scale_2"), "ModelOpt"),
        (("weight", "absmax", "quant_map"), "bitsandbytes"),
        (("weight", "SCB"), "bitsandbytes"),
        (("weight", "scales", "biases"), "MLX"),
        (("gate_up_proj_blocks", "gate_up_proj_scales"), "MXFP4"),
    ],
)
def test_names_of_tensors_tell_what_wrote_them(tmp_path: Path, parts: tuple[str, ...], kind: str) -> None:
    with pytest.raises(
        AntiphonError,
        match=(
            rf"looks like a checkpoint quantised by {kind}.* \(it holds the tensor thinker.*\); "
            r".* use the checkpoint before"
        ),
    ):
        refuse_quantized_tensors(tmp_path, [f"thinker.model.layers.0.mlp.{part}" for part in parts])


@pytest.mark.parametrize("family", ["tiny_checkpoint", "hybrid_checkpoint"])
def test_no_name_of_a_whole_checkpoint_looks_quantised(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    refuse_quantized_tensors(tmp_path, Checkpoint(request.getfixturevalue(family)).names())


def test_plan_and_checkpoint_name_it_by_the_index_alone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from antiphon.export.plan import plan

    shutil.copy(tiny_checkpoint / "config.json", tmp_path)
    listed = {
        f"thinker.model.layers.{layer}.mlp.gate.qweight": "model-00001-of-00001.safetensors"
        for layer in range(4)
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    for reads in (plan, Checkpoint):
        with pytest.raises(AntiphonError, match="looks like a checkpoint quantised by AWQ or GPTQ"):
            reads(tmp_path)
