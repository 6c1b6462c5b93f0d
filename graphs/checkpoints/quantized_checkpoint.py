"""Refuses quantised checkpoints, which it recognises by their configuration or their tensor names.

Sources: transformers 5.23 (`QuantizationMethod` and the classes of `quantization_config.py`), the file
`hf_quant_config.json` of NVIDIA ModelOpt, the key `quantization` of MLX, and the tensor names that these
tools write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.json_file import read_json_object

ADVICE = "Antiphon reads weights in bfloat16, float16 or float32: use the checkpoint before quantisation"
CONFIG_KEYS = ("quantization_config", "compression_config", "quantization")
MARKS = frozenset(("bits", "quant_method", "quant_algo", "load_in_4bit", "load_in_8bit"))
"""Keys of an entry `quantization` that concerns weights. A codec can have an entry `quantization` without
them."""
SIDE_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
"""Configuration files of ModelOpt, of older GPTQ tools and of older AWQ tools."""
LARGEST_SIDE_FILE = 8 * 2**20
METHODS = {
    "awq": "AWQ",
    "gptq": "GPTQ",
    "compressed-tensors": "compressed-tensors",
    "fp8": "FP8",
    "fbgemm_fp8": "FP8 of FBGEMM",
    "modelopt": "ModelOpt",
    "modelopt_fp4": "ModelOpt",
    "bitsandbytes": "bitsandbytes",
    "auto-round": "AutoRound",
    "mxfp4": "MXFP4",
    "mxfp8": "MXFP8",
    "nvfp4": "NVFP4",
    "torchao": "torchao",
    "hqq": "HQQ",
    "gguf": "GGUF",
}
WIDTHS = {"fp8": 8, "fbgemm_fp8": 8, "modelopt_fp4": 4, "mxfp4": 4, "mxfp8": 8, "nvfp4": 4, "eetq": 8}
"""Bits per weight of the methods that have only one width."""
BIT_KEYS = ("bits", "w_bit", "wbits", "num_bits", "nbits", "weight_bits")
WIDTH_KEYS = (
    "quant_algo",
    "quant_type",
    "weights",
    "weight_dtype",
    "forward_dtype",
    "dtype",
    "_type",
    "quantize",
    "mode",
)
"""Keys whose value contains the width: W4A16_AWQ, int8, FP8, Int4WeightOnlyConfig ..."""
WIDTH = re.compile(r"(?:^w|int|fp|float|nf|uint)_?(\d{1,2})", re.IGNORECASE)
OTHER_NUMBERS = ("activation", "kv_cache", "input", "output", "compute", "scale", "backward")
"""Parts of keys whose widths do not concern weights."""
SHORTEST, LONGEST = 1, 8

# (last part of a tensor's name, the method that writes it). The first match is used.
TENSORS = (
    (r"g_idx", "GPTQ"),
    (r"qweight|qzeros", "AWQ or GPTQ"),
    (r"weight_scale_2", "ModelOpt (NVFP4)"),
    (r"weight_packed", "compressed-tensors"),
    (r"weight_global_scale", "compressed-tensors (NVFP4)"),
    (r"weight_scale_inv|\w+_scale_inv", "FP8 in blocks"),
    (r"absmax|nested_absmax|quant_map|nested_quant_map|SCB|quant_state\w*|bitsandbytes__\w+", "bitsandbytes"),
    (r"\w+_blocks", "MXFP4"),
    (r"W_q", "HQQ"),
    (r"weight_scale|weight_zero_point|weight_offset|weight_scales|input_scale", "FP8 or INT8"),
    (r"scales", "MLX"),
    (r"_data", "Quanto"),
)
_KINDS = tuple((re.compile(pattern), kind) for pattern, kind in TENSORS)


def refuse_quantized_config(path: Path, raw: dict[str, Any]) -> None:
    """Raise AntiphonError if config.json (`raw`, from `path`) or a file beside it states a quantisation."""
    for where, entry in _entries(raw):
        method, bits = describe(entry)
        if method:
            raise _refusal(str(path), method, bits, where)
    for name in SIDE_FILES:
        beside = path.parent / name
        if beside.is_file():
            content = read_json_object(beside, largest=LARGEST_SIDE_FILE)
            default = {
                "hf_quant_config.json": "modelopt",
                "quantize_config.json": "gptq",
                "quant_config.json": "awq",
            }[name]
            method, bits = describe({"quant_method": default, **content})
            if method:
                raise _refusal(str(path.parent), method, bits, name)


def refuse_quantized_tensors(folder: Path, names: Iterable[str]) -> None:
    """Raise AntiphonError if `names`, the tensors of the checkpoint in `folder`, include a quantised
    tensor."""
    lasts: dict[str, str] = {}
    for name in names:
        lasts.setdefault(name.rpartition(".")[2], name)
    for pattern, kind in _KINDS:
        for last, name in lasts.items():
            if pattern.fullmatch(last):
                raise AntiphonError(
                    f"{folder} looks like a checkpoint quantised by {kind} "
                    f"(it holds the tensor {name:.100}); {ADVICE}."
                )


def describe(entry: Any) -> tuple[str, tuple[int, ...]]:
    """The quantisation method of a configuration entry, in words, and the stated bits per weight.

    Returns ("", ()) if the entry states no quantisation.
    """
    if not entry:
        return "", ()
    if not isinstance(entry, dict):
        return (_word(entry) if isinstance(entry, str) else "an unnamed method"), ()
    nested = entry.get("quantization")
    sources = entry, nested if isinstance(nested, dict) else {}
    if any("quant_algo" in source and not source["quant_algo"] for source in sources):
        return "", ()  # ModelOpt writes null if it quantised nothing
    stated = entry.get("quant_method") or entry.get("quantization_method") or _producer(entry)
    flags = {width: entry.get(f"load_in_{width}bit") for width in (4, 8)}
    if stated is None and any(isinstance(flag, bool) for flag in flags.values()):
        stated = "bitsandbytes"
    if stated == "bitsandbytes" and not any(flags.values()) and any(flag is False for flag in flags.values()):
        return "", ()  # quantisation is switched off
    if stated is None and ("group_size" in entry or "mode" in entry) and "bits" in entry:
        return "MLX", _widths(entry)
    method = _word(stated) if isinstance(stated, str) else "an unnamed method"
    named = {width for width, flag in flags.items() if flag is True} or set(_widths(entry))
    known = WIDTHS.get(stated) if isinstance(stated, str) else None
    detail = _detail(sources)
    return f"{method} ({detail})" if detail else method, tuple(sorted(named or ({known} if known else set())))


def _entries(raw: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of every entry of CONFIG_KEYS in `raw`, outer sections first."""
    row: list[tuple[str, dict[str, Any]]] = [("", raw)]
    while row:
        for prefix, section in row:
            for key in CONFIG_KEYS:
                entry = section.get(key)
                if entry and (
                    key != "quantization" or isinstance(entry, dict) and not MARKS.isdisjoint(entry)
                ):
                    yield f"{prefix}{key}", entry
        row = [
            (f"{prefix}{key}."[-80:], value)
            for prefix, section in row
            for key, value in section.items()
            if isinstance(value, dict)
        ]


def _producer(entry: dict[str, Any]) -> Any:
    """The producer that an entry states, or "modelopt" if it states only `quant_algo`; otherwise None."""
    producer = entry.get("producer")
    return (
        producer.get("name") if isinstance(producer, dict) else "modelopt" if "quant_algo" in entry else None
    )


def _detail(sources: tuple[dict[str, Any], ...]) -> str:
    """A detail of the method: its algorithm, its format, or "in blocks" (FP8); "" if none is stated."""
    for source in sources:
        for key in ("quant_algo", "bnb_4bit_quant_type", "format"):
            if isinstance(source.get(key), str) and source[key]:
                return _plain(source[key])
    return "in blocks" if sources[0].get("weight_block_size") else ""


def _widths(entry: Any) -> tuple[int, ...]:
    """The bits per weight that an entry states, at any depth."""
    found: set[int] = set()
    row = [entry]
    while row:
        below: list[Any] = []
        for node in row:
            for key, value in node.items():
                if any(part in key for part in OTHER_NUMBERS):
                    continue
                if key in BIT_KEYS and type(value) is int:
                    found.add(value)
                elif key in WIDTH_KEYS and isinstance(value, str):
                    found.update(int(digits) for digits in WIDTH.findall(value[:100])[:1])
                elif isinstance(value, dict):
                    below.append(value)
        row = below
    return tuple(sorted(width for width in found if SHORTEST <= width <= LONGEST))


def _word(method: str) -> str:
    return METHODS.get(method.lower(), "") or _plain(method)


def _plain(text: str) -> str:
    """The printable characters among the first 40 of `text`, for an error message."""
    return "".join(letter for letter in text[:40] if letter.isprintable())


def _refusal(place: str, method: str, bits: tuple[int, ...], where: str) -> AntiphonError:
    width = f" to {' and '.join(map(str, bits))} bits" if bits else ""
    return AntiphonError(
        f"{place} is of a checkpoint quantised by {method}{width} ({_plain(where[-40:])}); {ADVICE}."
    )
