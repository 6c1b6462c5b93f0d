"""The record of a model family: all facts that differ between families. Other code asks the record.

Each family's folder makes its record in `family.py`; `graphs.families.registry` finds a record by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.bundle.sampling import SamplingParameters
from ..checkpoints.config_reader import ConfigReader
from ..config import Code2WavConfig, OmniConfig
from ..random.initializers import Tensor
from ..stage import Stage

if TYPE_CHECKING:
    from ..random.tokenizer import TokenIds


@dataclass(frozen=True)
class ThinkerAlone:
    """How to read the checkpoint of a Thinker that was saved alone."""

    section: tuple[str, ...]
    """The section of a whole config.json that its config.json equals: ("thinker_config",), or
    ("thinker_config", "text_config") for a text-only Thinker."""
    rename: dict[str, str]
    """Prefix of a stored tensor name -> prefix in a whole checkpoint. Older versions of transformers save
    names without `thinker.`, newer ones with it."""


_TEXT = {"model.": "thinker.model.", "lm_head.": "thinker.lm_head."}
_SEEING = {
    "model.language_model.": "thinker.model.",
    "model.visual.": "thinker.visual.",
    "visual.": "thinker.visual.",
    **_TEXT,
}
TEXT_ALONE = ThinkerAlone(("thinker_config", "text_config"), _TEXT)
SEEING_ALONE = ThinkerAlone(("thinker_config",), _SEEING)
HEARING_ALONE = ThinkerAlone(("thinker_config",), {"audio_tower.": "thinker.audio_tower.", **_SEEING})
"""How transformers saves a Thinker with text, with text and vision, and with text, vision and audio."""


@dataclass(frozen=True)
class CodecFiles:
    """The files of a codec that has its own folder."""

    config: Path
    weights: Path
    """A torch archive. Its tensor names are those of a whole checkpoint without `code2wav.`."""


@dataclass(frozen=True)
class RandomCheckpoint:
    """The part of a random checkpoint that depends on the family; see graphs.random.new_checkpoint."""

    sizes: tuple[str, ...]
    configuration: Callable[[str, TokenIds, str], dict[str, Any]]
    """Maps (a size of `sizes`, the tokenizer's ids, the dtype) to the `config.json` object."""
    speech: Callable[[OmniConfig], Iterator[Tensor]]
    """Yields all speech tensors in file order: Talker, code predictor, Code2Wav, codec encoder (if any)."""
    model_max_length: int
    """The context length that tokenizer_config.json states, in tokens."""
    processor_class: str | None = None
    """The transformers processor class that the files state; None if transformers has none."""
    new_codec: Callable[[Path, Code2WavConfig], CodecFiles] | None = None
    """Makes the codec's own folder in the checkpoint folder, writes its configuration and returns its files.
    None: the codec has no folder of its own."""


def no_codec_folder(_checkpoint: Path) -> None:
    """`find_codec` of a family whose codec never has its own folder: returns None."""


@dataclass(frozen=True)
class Family:
    """One model family.

    The functions import torch and the tokenizer when they are called, so loading a record imports neither.
    """

    name: str
    """The name of the family for users and in bundles, and its `model_type`."""
    read_config: Callable[[ConfigReader], OmniConfig]
    """Maps a whole config.json to the configuration. Raises AntiphonError with the file and the field."""
    stages: Callable[[OmniConfig], tuple[Stage, ...]]
    """The stages of a configuration in build order, without those of parts that the checkpoint lacks."""
    predictor: SamplingParameters
    """Sampling parameters of the code predictor that are used if generation_config.json states none."""
    random: Callable[[], RandomCheckpoint]
    """The contents of a random checkpoint, for `new_checkpoint`."""
    aliases: tuple[str, ...] = ()
    """Further `model_type` values of whole checkpoints."""
    thinkers: Mapping[str, ThinkerAlone] = field(default_factory=dict)
    """`model_type` -> how to read a Thinker saved alone, as a checkpoint of this family without speech."""
    parts_alone: Mapping[str, str] = field(default_factory=dict)
    """`model_type` -> name of a part that cannot be used without a Thinker."""
    find_codec: Callable[[Path], CodecFiles | None] = no_codec_folder
    """The files of the codec in a checkpoint folder; None if the codec has no folder of its own."""

    @property
    def model_types(self) -> tuple[str, ...]:
        """Every `model_type` that belongs to the family."""
        return (self.name, *self.aliases, *self.thinkers, *self.parts_alone)
