"""A WAV file that is written while the model speaks and is always complete under its final name."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile

from ..runtime.bundle.beside import file_beside
from ..runtime.bundle.errors import AntiphonError


def check_wav_path(path: Path) -> None:
    """Raise AntiphonError unless `path` can become a WAV file: it checks suffix, folder, and that `path` is
    no folder."""
    if path.suffix.lower() != ".wav":
        raise AntiphonError(
            f"The output {path} is not a .wav file; only WAV is written, so give a name that ends in .wav."
        )
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise AntiphonError(
            f"The output folder {folder if path.is_symlink() else path.parent} does not exist; make it first."
        )
    if path.is_dir():
        raise AntiphonError(f"The output {path} is a folder, expected a file; give another name.")


class WavFile:
    """Mono 16-bit WAV at `path` (of a link: at its target), written under a temporary name and renamed at the
    end.

    The end is that of the `with` block. After an interruption the file is complete and holds the speech so
    far. Without a sample, or after an error, there is no new file and an older one stays; `kept` tells which.
    Raises AntiphonError if the disk is full.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        check_wav_path(path)
        self.path, self.samples, self.kept = path, 0, False
        self._target = Path(os.path.realpath(path))
        try:
            self._beside, self._lock = file_beside(self._target)
        except OSError as error:
            raise AntiphonError(
                f"Cannot write to {path.parent} ({error.strerror or error}); give another --output."
            ) from None
        try:
            self._file = soundfile.SoundFile(self._beside, "w", sample_rate, 1, "PCM_16", format="WAV")
        except (OSError, soundfile.LibsndfileError) as error:
            self._remove()
            raise AntiphonError(f"Cannot write to {path.parent} ({error}); give another --output.") from None

    def write(self, samples: np.ndarray) -> None:
        """Append float32 [n]; values beyond [-1, 1] are clipped."""
        try:
            self._file.write(np.clip(samples, -1.0, 1.0))
        except (OSError, soundfile.LibsndfileError, AssertionError) as error:
            # soundfile asserts a complete write
            raise self._full(error) from None
        self.samples += len(samples)

    def __enter__(self) -> WavFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._file.close()
            if self.samples and (error is None or isinstance(error, KeyboardInterrupt)):
                self._beside.replace(self._target)
                self.kept = True
        except (OSError, soundfile.LibsndfileError) as failure:
            if error is None or isinstance(error, KeyboardInterrupt):
                raise self._full(failure) from None
        finally:
            self._remove()

    def _remove(self) -> None:
        self._beside.unlink(missing_ok=True)  # gone after the rename
        os.close(self._lock)

    def _full(self, error: Exception) -> AntiphonError:
        reason = str(error).rstrip(".") or "not all samples were written"
        return AntiphonError(
            f"Cannot write {self.path} (is the disk full?): {reason}; "
            "free some space or give another --output."
        )
