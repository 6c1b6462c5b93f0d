"""What a model family is, as one record: every fact in which families differ stands here, and everything else asks the record.

A family's folder makes the record in `family.py`; `graphs.families.registry` finds it by its name.
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
    """How the checkpoint of a Thinker is read that was saved without the rest."""

    section: tuple[str, ...]
    """Where in a whole config.json its config.json stands: ("thinker_config",), or ("thinker_config", "text_config") of a Thinker of text alone."""
    rename: dict[str, str]
    """Prefix in these weights to prefix in the whole. Newer versions of transformers keep `thinker.` when they save, older ones leave it out."""


_TEXT = {"model.": "thinker.model.", "lm_head.": "thinker.lm_head."}
_SEEING = {"model.language_model.": "thinker.model.", "model.visual.": "thinker.visual.", "visual.": "thinker.visual.", **_TEXT}
TEXT_ALONE = ThinkerAlone(("thinker_config", "text_config"), _TEXT)
SEEING_ALONE = ThinkerAlone(("thinker_config",), _SEEING)
HEARING_ALONE = ThinkerAlone(("thinker_config",), {"audio_tower.": "thinker.audio_tower.", **_SEEING})
"""How transformers saves a Thinker of text, one of text and vision, and one that also hears."""


@dataclass(frozen=True)
class CodecFiles:
    """The files of a codec that lies in a folder of its own."""

    config: Path
    weights: Path
    """A torch archive, whose tensors have their names of the whole without `code2wav.`."""


@dataclass(frozen=True)
class RandomCheckpoint:
    """What a random checkpoint of a family holds beside what all families share; see graphs.random.new_checkpoint."""

    sizes: tuple[str, ...]
    configuration: Callable[[str, TokenIds, str], dict[str, Any]]
    """From a size of `sizes`, the tokenizer's ids and the dtype to the `config.json` object, whose `model_type` the family answers for."""
    speech: Callable[[OmniConfig], Iterator[Tensor]]
    """Every tensor behind the Thinker, in file order: Talker, code predictor, Code2Wav and what else of speech the configuration states."""
    model_max_length: int
    """Tokens, of tokenizer_config.json."""
    processor_class: str | None = None
    """The processor of transformers that the files name; None where transformers has none."""
    new_codec: Callable[[Path, Code2WavConfig], CodecFiles] | None = None
    """Makes the codec's own folder in the checkpoint folder, with its configuration, and tells where its weights go. None: the codec lies with the rest."""


def no_codec_folder(_checkpoint: Path) -> None:
    """The answer of a family whose codec always lies with the rest."""


@dataclass(frozen=True)
class Family:
    """One model family. Its functions import what they need when they are called: the record itself loads neither torch nor a tokenizer."""

    name: str
    """Its `model_type`, and the name that users and bundles call it by."""
    read_config: Callable[[ConfigReader], OmniConfig]
    """From a whole config.json to the configuration, whose `family` is that of the reader. Raises AntiphonError that names the file and the field."""
    stages: Callable[[OmniConfig], tuple[Stage, ...]]
    """The stages of a configuration in the order they are built; those of parts that the checkpoint lacks are left out."""
    predictor: SamplingParameters
    """How the code predictor samples where generation_config.json says nothing."""
    random: Callable[[], RandomCheckpoint]
    """What `new_checkpoint` writes."""
    aliases: tuple[str, ...] = ()
    """Further values of `model_type` of whole checkpoints."""
    thinkers: Mapping[str, ThinkerAlone] = field(default_factory=dict)
    """The `model_type` of each kind of Thinker alone that is read as a checkpoint of this family without speech."""
    parts_alone: Mapping[str, str] = field(default_factory=dict)
    """The `model_type` of each part that answers nothing without a Thinker, and what that part is called."""
    find_codec: Callable[[Path], CodecFiles | None] = no_codec_folder
    """The files of the codec in a checkpoint folder that keeps it in a folder of its own; None where it lies with the rest."""

    @property
    def model_types(self) -> tuple[str, ...]:
        """Every `model_type` that the family answers for."""
        return (self.name, *self.aliases, *self.thinkers, *self.parts_alone)
