"""The real pipeline with a given text: the Thinker reads the prompt, and in place of what it would write the Talker gets the text that it should."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.sampling_parameters import SamplingParameters
from ...runtime.events import Reply
from ...runtime.omni import Omni
from ...runtime.stages.thinker import Thinker, ThinkerContext, Token
from ...runtime.stages.voices import read_voice_table


class GivenThinker(Thinker):
    """Prefills like any Thinker, so that the Talker gets its hidden rows, then writes the ids that it was given."""

    given: Sequence[int] = ()

    def answer(
        self, context: ThinkerContext, sampling: SamplingParameters, seed: int, before_step: Callable[[], int], on_step: Callable[[float], None]
    ) -> Iterator[Token]:
        """See Thinker."""
        self.prefill(context, before_step)
        context.answer_row = context.states.length
        context.answer_start = (context.states.snapshot(), context.next_position)
        for token in self.given:
            before_step()
            yield Token(int(token), spoken=True, is_last=False)


class Speaker:
    """Says given texts with the Talker, the code predictor and Code2Wav of a loaded bundle. One text at a time."""

    def __init__(self, omni: Omni, bundle: Path) -> None:
        """`bundle`: the folder that `omni` was loaded from. Raises AntiphonError for a bundle that does not speak."""
        if not omni.manifest.speaks:
            raise AntiphonError(f"The bundle {bundle} holds no speech stages; build it from a checkpoint with a Talker.")
        self._omni = Omni(omni.manifest, omni.engines, omni.front_end, voice_table=read_voice_table(bundle / "frontend"))
        self._omni.engine_lock = omni.engine_lock
        self._thinker = GivenThinker(omni.engines, omni.manifest, omni.engine_lock)
        self._omni.thinker = self._thinker

    def say(self, messages: Sequence[Any], text: str, **options: Any) -> Reply:
        """`text` as the answer to `messages`; options as those of `Omni.generate`."""
        self._thinker.given = self._omni.front_end.encode_text(text).tolist()
        return self._omni.generate(messages, **options)
