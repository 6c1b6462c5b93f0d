"""Reads and checks a checkpoint's configuration files. Every error names the file and the field."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.json_file import read_json_object
from ..config import OmniConfig
from ..families.registry import families
from .check_config import check_config
from .config_reader import ConfigReader, short
from .quantized_checkpoint import refuse_quantized_config
from .stored_parts import stored_parts
from .thinker_alone import whole_config

LARGEST_CONFIG = 8 * 2**20
"""Bytes of config.json. Published files have up to 40,000; a list of all unquantised experts has about
3,000,000."""


def read_config(checkpoint: str | Path) -> OmniConfig:
    """Read and check `config.json` of the folder `checkpoint`.

    Raises AntiphonError if the file is missing, is not JSON, names an unknown family, states a quantisation,
    lacks a field, exceeds a bound or contradicts itself.
    """
    path = Path(checkpoint) / "config.json"
    if not is_file(path):
        raise AntiphonError(
            f"No checkpoint at {str(checkpoint):.200}: expected a folder with config.json; "
            "give the folder of a Hugging Face checkpoint."
        )
    raw = read_json_object(path, largest=LARGEST_CONFIG)
    refuse_quantized_config(path, raw)
    raw, rename = whole_config(raw, path)
    name, known = raw.get("model_type"), families()
    family = next((one for one in known if name in (one.name, *one.aliases)), None)
    if family is None:
        names = [
            *(one.name for one in known),
            *(alias for one in known for alias in one.aliases),
            *(kind for one in known for kind in one.thinkers),
        ]
        raise AntiphonError(
            f"{path}: unknown model family {short(name)}; "
            f"expected model_type to be one of {', '.join(names)}."
        )
    reader = ConfigReader(raw, path, stored_parts(path.parent, rename), family.name)
    config = family.read_config(reader)
    config = dataclasses.replace(config, rename=rename, left_out=tuple(reader.left_out))
    check_config(config, path)
    return config


def is_file(path: Path) -> bool:
    """Whether `path` is a file; False also for a path that is too long for the file system."""
    try:
        return path.is_file()
    except OSError:
        return False
