"""A loaded bundle: what all its conversations share and none of them changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .bundle.errors import BrokenBundle
from .bundle.manifest import Manifest
from .engines.base import Engine
from .frontend.media.media_policy import LOCAL, MediaPolicy
from .scheduling.engine_lock import EngineLock
from .stages.thinker import Thinker
from .stages.voices import Voice, check_voice, find_voice

DEFAULT_SAMPLE_RATE = 24000


class LoadedModel:
    """Manifest, engines and front end of one bundle, with the lock that makes engine runs serial.

    It has no replies: see Admission.
    """

    def __init__(
        self,
        manifest: Manifest,
        engines: Mapping[str, Engine],
        front_end: Any,
        prefill_chunk: int = 512,
        voice_table: np.ndarray | None = None,
        media: MediaPolicy = LOCAL,
    ) -> None:
        """`engines`: by stage.

        `front_end`: a FrontEnd. `prefill_chunk`: the most prompt tokens of one run. `voice_table`: see
        voices.read_voice_table. `media`: where the recording of a voice may come from. Raises AntiphonError
        for a bundle without a Thinker.
        """
        if "thinker" not in engines:
            raise BrokenBundle("The bundle has no stage thinker; build it again.")
        self.manifest, self.engines, self.front_end, self.prefill_chunk = (
            manifest,
            engines,
            front_end,
            prefill_chunk,
        )
        self.voice_table, self.media = voice_table, media
        self.engine_lock = EngineLock()
        self.thinker = Thinker(engines, manifest, self.engine_lock, prefill_chunk)
        self.frames_per_token = manifest.constants.frames_per_token
        """Estimate of the speech frames of one text token; None where the bundle knows none."""
        self.sample_rate = (
            engines["code2wav"].entry.constant("sample_rate")
            if "code2wav" in engines
            else DEFAULT_SAMPLE_RATE
        )
        """Of the speech, in hertz."""

    def voice(self, wanted: Any = None, sample_rate: int | None = None) -> Voice:
        """The voice that `wanted` names (None: the bundle's default), the voice of a recording,
        or a Voice that is checked; see `Omni.voice`.
        """
        if isinstance(wanted, Voice):
            voice = wanted
        else:
            encoder = self.engines.get("codec_encoder")
            voice = find_voice(
                self.manifest, wanted, self.voice_table, encoder, self.engine_lock, sample_rate, self.media
            )
        contract = self.manifest.talker
        if contract is not None:
            check_voice(
                voice,
                contract.voice,
                self.input_sizes("talker")[contract.frame_input],
                self.manifest.constants.codebook_size or None,
            )
        return voice

    def input_sizes(self, stage: str) -> dict[str, int]:
        """The size of the last axis of every input of `stage`, where it is fixed."""
        return {
            spec.name: spec.shape[-1]
            for spec in self.engines[stage].entry.inputs
            if spec.shape and isinstance(spec.shape[-1], int)
        }

    @property
    def samples_per_frame(self) -> int:
        """Samples of one codec frame. The bundle must have speech stages."""
        return self.engines["code2wav"].entry.constant("samples_per_frame")
