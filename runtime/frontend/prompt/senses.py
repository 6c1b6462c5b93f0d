"""The senses of a bundle: whether it hears and sees."""

from __future__ import annotations

from dataclasses import dataclass

from ...bundle.errors import InvalidInput


@dataclass(frozen=True)
class Senses:
    """`hears`: the bundle has an audio encoder. `sees`: it has a vision encoder."""

    hears: bool
    sees: bool

    def expect_hearing(self) -> None:
        """Raise AntiphonError if the bundle takes no audio."""
        if not self.hears:
            raise InvalidInput(
                "This bundle has no audio encoder, so it takes no audio; "
                "leave the audio out, or build a checkpoint that hears."
            )

    def expect_sight(self) -> None:
        """Raise AntiphonError if the bundle takes no images and no video."""
        if not self.sees:
            raise InvalidInput(
                "This bundle has no vision encoder, so it takes no images and no video; "
                "leave them out, or build a checkpoint that sees."
            )
