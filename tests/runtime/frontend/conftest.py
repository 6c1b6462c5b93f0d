"""The front ends for all tests of this folder:
the tiny checkpoint's, and the same read as one of Qwen3.5-Omni, which tells the time in text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from antiphon.export.frontend import write_frontend
from antiphon.graphs.checkpoints.read_config import read_config
from antiphon.runtime.frontend.prompt.front_end import FrontEnd


@pytest.fixture(scope="session")
def frontend_folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frontend")
    write_frontend(tiny_checkpoint, read_config(tiny_checkpoint), folder)
    return folder


@pytest.fixture(scope="session")
def front_end(frontend_folder: Path) -> FrontEnd:
    return FrontEnd(frontend_folder)


@pytest.fixture(scope="session")
def timed(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FrontEnd]:
    """`timed(timestamp_format=..., audio_timestamp_seconds=...)`: a front end with textual time,
    made of the tiny checkpoint's files.
    """
    made: dict[tuple[str, float], FrontEnd] = {}

    def make(
        timestamp_format: str = "<{seconds:.1f} seconds>", audio_timestamp_seconds: float = 0.0
    ) -> FrontEnd:
        settings = (timestamp_format, audio_timestamp_seconds)
        if settings not in made:
            folder, config = tmp_path_factory.mktemp("timed"), read_config(tiny_checkpoint)
            thinker = dataclasses.replace(
                config.thinker,
                timestamp_format=timestamp_format,
                audio_timestamp_seconds=audio_timestamp_seconds,
                audio=dataclasses.replace(config.thinker.audio, convolutions=4),
                textual_time=True,
                may_think=True,
                states_video_size=True,
            )
            write_frontend(tiny_checkpoint, dataclasses.replace(config, thinker=thinker), folder)
            made[settings] = FrontEnd(folder)
        return made[settings]

    return make
