"""The codec folder of Qwen3.5-Omni: `config.yaml` and `model_weights.pt`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ....runtime.bundle.errors import AntiphonError, require_extra
from ...checkpoints.config_bounds import LARGEST_NUMBER, first_excess
from ...config import Code2WavConfig, RopeConfig

FOLDERS = ("codec_decode_online", "code2wav")
CONFIG_NAME = "config.yaml"
WEIGHTS_NAME = "model_weights.pt"
LARGEST_FILE = 2**16
"""Bytes of config.yaml. PyYAML needs a second for this size; known files have a few thousand bytes."""
MOST_BRACKETS = 40
"""Depth of nested brackets; PyYAML's time grows with its square."""
TRANSFORMER = "model.post_module.args"


def find_codec_folder(checkpoint: Path) -> Path | None:
    """The codec folder in the folder `checkpoint`; None if there is none."""
    return next((checkpoint / name for name in FOLDERS if (checkpoint / name / CONFIG_NAME).is_file()), None)


def read_code2wav_config(folder: Path) -> Code2WavConfig:
    """The configuration of Code2Wav from `config.yaml` in `folder`; YAML tags are ignored.

    Raises AntiphonError with the file and the field. Source of the structure: TensorRT-Edge-LLM 0.11, which
    reads the published files.
    """
    fields = _Fields(folder / CONFIG_NAME)
    heads = fields.count(f"{TRANSFORMER}.n_head")
    local_heads = fields.find(f"{TRANSFORMER}.n_local_heads", -1)
    # published files misspell it
    latent = (
        "model.dac.latent_dim" if fields.find("model.dac.latent_dim") is not None else "model.dac.latet_dim"
    )
    rates = (
        "model.dac.upsample_rates"
        if fields.find("model.dac.upsample_rates") is not None
        else "model.upsample_rates"
    )
    config = Code2WavConfig(
        codebook_size=fields.count("model.quantizer.bins"),
        num_quantizers=fields.count("model.quantizer.n_q"),
        num_semantic_quantizers=fields.count("model.quantizer.n_q_semantic"),
        codebook_dim=fields.count("model.quantizer.dimension"),
        quantizer_dim=fields.count("model.quantizer.output_dimension"),
        latent_dim=fields.count(latent),
        pre_conv_kernel=fields.count("model.pre_conv_kernel", 3),
        hidden_size=fields.count(f"{TRANSFORMER}.dim"),
        intermediate_size=fields.count(f"{TRANSFORMER}.intermediate_size"),
        num_hidden_layers=fields.count(f"{TRANSFORMER}.n_layer"),
        num_attention_heads=heads,
        num_key_value_heads=heads
        if local_heads in (None, -1)
        else fields.count(f"{TRANSFORMER}.n_local_heads"),
        head_dim=fields.count(f"{TRANSFORMER}.head_dim"),
        rms_norm_eps=fields.number(f"{TRANSFORMER}.norm_eps", 1e-5),
        rope=RopeConfig(fields.number(f"{TRANSFORMER}.rope.rope_theta", 10_000.0)),
        sliding_window=fields.count("model.post_module.window_size"),
        upsample_rates=fields.counts("model.dac.decoder_rates"),
        upsampling_ratios=fields.counts(rates, (2, 2)),
        decoder_dim=fields.count("model.dac.decoder_dim"),
        symmetric_trim=False,
        sample_rate=fields.count("model.sample_rate", fields.count("sample_rate", 24_000)),
    )
    beyond = first_excess(config)
    if beyond is not None:
        raise AntiphonError(
            f"{fields.path}: {beyond[0]} of the codec is {_short(getattr(config, beyond[0]))}, "
            f"expected {beyond[1]}; correct the file."
        )
    _check(config, fields, latent)
    return config


def codec_yaml(config: Code2WavConfig) -> str:
    """The text of a `config.yaml` for `config`. TensorRT-Edge-LLM can read it too."""
    return f"""\
model:
  sample_rate: {config.sample_rate}
  pre_conv_kernel: {config.pre_conv_kernel}
  quantizer:
    n_q: {config.num_quantizers}
    n_q_semantic: {config.num_semantic_quantizers}
    bins: {config.codebook_size}
    dimension: {config.codebook_dim}
    input_dimension: {config.quantizer_dim}
    output_dimension: {config.quantizer_dim}
  dac:
    latet_dim: {config.latent_dim}
    decoder_dim: {config.decoder_dim}
    decoder_rates: {list(config.upsample_rates)}
    upsample_rates: {list(config.upsampling_ratios)}
  post_module:
    input_dim: {config.latent_dim}
    window_size: {config.sliding_window}
    channels_first: true
    args:
      n_layer: {config.num_hidden_layers}
      n_head: {config.num_attention_heads}
      n_local_heads: {config.num_key_value_heads}
      dim: {config.hidden_size}
      head_dim: {config.head_dim or config.hidden_size // config.num_attention_heads}
      intermediate_size: {config.intermediate_size}
      norm_eps: {config.rms_norm_eps!r}
      rope_base: -1
      rope:
        rope_theta: {config.rope.theta!r}
"""


class _Fields:
    """The fields of one YAML file by dotted name. Every error names the file and the field."""

    def __init__(self, path: Path) -> None:
        self.path, self._root = path, _load(path)

    def find(self, name: str, default: Any = None) -> Any:
        """The value of field `name`, or `default` if it is missing or null."""
        value: Any = self._root
        for depth, key in enumerate(keys := name.split(".")):
            if not isinstance(value, dict):
                raise AntiphonError(
                    f"{self.path}: {'.'.join(keys[:depth]) or 'the file'} is {_short(value)}, "
                    "expected a mapping; correct the file."
                )
            value = value.get(key)
            if value is None:
                return default
        return value

    def take(self, name: str, default: Any) -> Any:
        value = self.find(name, default)
        if value is None:
            raise AntiphonError(
                f"{self.path}: field {name} is missing; use the complete {CONFIG_NAME} of the codec."
            )
        return value

    def refuse(self, name: str, expected: str) -> AntiphonError:
        """Return the error for a wrong value of field `name`."""
        return AntiphonError(
            f"{self.path}: field {name} is {_short(self.find(name))}, expected {expected}; correct the file."
        )

    def count(self, name: str, default: int | None = None) -> int:
        """The value of field `name`, a positive integer."""
        value = self.take(name, default)
        if not _is_count(value):
            raise self.refuse(name, "an integer of at least 1")
        return value

    def counts(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """The value of field `name`, a list of one or more positive integers."""
        value = self.take(name, default)
        if not isinstance(value, list | tuple) or not value or not all(map(_is_count, value)):
            raise self.refuse(name, "a list of one or more integers of at least 1")
        return tuple(value)

    def number(self, name: str, default: float) -> float:
        """The value of field `name`, a finite number above 0.

        Strings are converted: codec files contain 1e-5, which YAML 1.1 reads as a string.
        """
        value = self.take(name, default)
        try:
            number = (
                float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
            )
        except (ValueError, OverflowError):
            number = 0.0
        if not 0 < number <= LARGEST_NUMBER:
            raise self.refuse(name, f"a number above 0 and up to {LARGEST_NUMBER:g}")
        return number


def _load(path: Path) -> Any:
    """The plain values of a YAML file. A tagged value is read as the mapping, list or text after its tag."""
    require_extra("build", "Reading a codec folder", "yaml")
    import yaml

    class PlainLoader(yaml.SafeLoader):
        """Constructs only mappings, lists and scalars. Merge keys are refused: their copies have no limit."""

        def flatten_mapping(self, node: Any) -> None:
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys are not read", node.start_mark
                )

    def construct(loader: Any, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        return (
            loader.construct_sequence(node, deep=True)
            if isinstance(node, yaml.SequenceNode)
            else loader.construct_scalar(node)
        )

    PlainLoader.add_constructor(None, construct)  # type: ignore[type-var]
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise AntiphonError(
                f"{path} has more than the {LARGEST_FILE} bytes of any codec's configuration; "
                "download it again."
            )
        steps = itertools.accumulate((letter in b"[{") - (letter in b"]}") for letter in content)
        if max(steps, default=0) > MOST_BRACKETS:
            raise AntiphonError(
                f"{path} is nested deeper than {MOST_BRACKETS} levels, which no codec's configuration is; "
                "download it again."
            )
        return yaml.load(content.decode("utf-8"), Loader=PlainLoader)  # noqa: S506
    except OSError as error:
        raise AntiphonError(
            f"{path} cannot be read ({error.strerror or error}); make it readable or download it again."
        ) from None
    # PyYAML raises its own errors, those of int(), float() and date(), and others if a tag does not match its
    # value.
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        where = getattr(error, "problem_mark", None)
        place = f" (line {where.line + 1})" if where is not None else ""
        raise AntiphonError(f"{path} is not valid YAML{place}; download the file again.") from None


def _check(config: Code2WavConfig, fields: _Fields, latent: str) -> None:
    """Raise AntiphonError for sizes that contradict each other and for an unsupported rotary embedding."""

    def expect(condition: bool, name: str, expected: str) -> None:
        if not condition:
            raise fields.refuse(name, expected)

    heads, key_value_heads, halvings = (
        config.num_attention_heads,
        config.num_key_value_heads,
        2 ** len(config.upsample_rates),
    )
    expect(
        config.num_semantic_quantizers < config.num_quantizers,
        "model.quantizer.n_q_semantic",
        f"less than n_q ({config.num_quantizers})",
    )
    expect(
        config.decoder_dim % halvings == 0,
        "model.dac.decoder_dim",
        f"a multiple of {halvings}, halved once per decoder rate",
    )
    expect(
        fields.count("model.post_module.input_dim") == config.latent_dim,
        "model.post_module.input_dim",
        f"{config.latent_dim} as {latent}",
    )
    expect(config.sliding_window >= 2, "model.post_module.window_size", "an integer of at least 2")
    expect(config.pre_conv_kernel >= 2, "model.pre_conv_kernel", "an integer of at least 2")
    expect(config.head_dim % 2 == 0, f"{TRANSFORMER}.head_dim", "an even integer")
    expect(
        heads % key_value_heads == 0,
        f"{TRANSFORMER}.n_head",
        f"a multiple of n_local_heads ({key_value_heads})",
    )
    # Without rope_base, the rotary embedding pairs channel c with c + head_dim / 2; with it, neighbouring
    # channels.
    expect(
        fields.find(f"{TRANSFORMER}.rope_base", -1) == -1,
        f"{TRANSFORMER}.rope_base",
        "-1 (the base stands in rope.rope_theta)",
    )
    expect(
        fields.find(f"{TRANSFORMER}.rope.rope_type", "default") == "default",
        f"{TRANSFORMER}.rope.rope_type",
        "'default'",
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def _short(value: Any) -> str:
    """`value` in at most 60 characters. For a collection or a huge integer only its type: its text has no
    limit."""
    plain = isinstance(value, float | str | bool | None) or isinstance(value, int) and value.bit_length() < 64
    text = repr(value) if plain else f"of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
