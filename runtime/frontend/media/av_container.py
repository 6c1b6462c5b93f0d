"""The only module that opens media files with PyAV. It allows one chosen demuxer and known decoders, and no
other files or addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ...bundle.errors import InvalidInput, require_extra
from ...bundle.said import reason
from .media_file import open_media
from .media_formats import WANTED, require_format
from .media_policy import MediaPolicy
from .mp4_boxes import check_boxes

MOST_DAMAGED = 8
MOST_STREAMS = 64
"""The most tracks of one file."""
SOUND_CODECS = (
    "aac aac_latm ac3 eac3 alac flac mp1 mp1float mp2 mp2float mp3 mp3float opus libopus vorbis libvorbis "
    "amrnb amrwb libopencore_amrnb libopencore_amrwb adpcm_ms adpcm_ima_wav adpcm_ima_qt gsm gsm_ms libgsm "
    "speex libspeex wmav2 pcm_alaw pcm_mulaw pcm_u8 pcm_s8 pcm_s16le pcm_s16be pcm_s24le pcm_s24be pcm_s32le "
    "pcm_s32be pcm_s64le pcm_s64be pcm_f32le pcm_f32be pcm_f64le pcm_f64be"
).split()
FILM_CODECS = (
    "h264 hevc vp8 vp9 libvpx libvpx-vp9 av1 libdav1d libaom-av1 mpeg1video mpeg2video mpeg4 msmpeg4v2 "
    "msmpeg4 h263 mjpeg theora prores rawvideo gif dvvideo ffv1 vc1 wmv3 huffyuv ffvhuff utvideo"
).split()
"""FFmpeg's names of the decoders that may run; FFmpeg has about 500."""


@contextmanager
def open_container(source: Path | bytes, kind: str, policy: MediaPolicy, label: str) -> Iterator[Any]:
    """Open a media file with PyAV, to be read as `kind` (audio or video).

    `label`: the name of the file in errors. Raises AntiphonError if PyAV is missing, if the file is not a
    container of that kind, and if FFmpeg finds an error inside the `with` block.
    """
    found = require_format(source, kind, label)
    require_extra("media", f"Reading {kind} from {label}", "av")
    import av

    if found.demuxer == "mp4":
        check_boxes(source, label)
    options = {
        "format_whitelist": found.demuxer,  # applies to formats inside the container, too
        "codec_whitelist": ",".join((*SOUND_CODECS, *FILM_CODECS)),
        "protocol_whitelist": "none",  # an empty list would be ignored
        "max_streams": str(MOST_STREAMS),
        "max_pixels": str(policy.max_pixels),
    }
    if found.demuxer == "mp4":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
    try:
        with (
            open_media(source) as stream,
            av.open(stream, mode="r", format=found.demuxer, options=options, io_open=_refuse) as container,
        ):
            yield container
    except _OtherFile:
        raise InvalidInput(
            f"{label} refers to media in another file, which is not opened; "
            "give a file that holds its media itself."
        ) from None
    except (av.FFmpegError, ValueError) as error:
        raise InvalidInput(
            f"{label} cannot be read as {kind} ({reason(error)}); give {WANTED[kind]}."
        ) from None


def decoded(container: Any, track: Any, policy: MediaPolicy, label: str) -> Iterator[Any]:
    """Return the frames of a track. Raises AntiphonError for a codec that is not allowed."""
    context = track.codec_context
    if context is None or context.codec.name not in (*SOUND_CODECS, *FILM_CODECS):
        name = "of an unknown kind" if context is None else str(context.codec.name)
        raise InvalidInput(
            f"{label} has a track coded as {name}, which is not read; "
            "convert it, for example to H.264 and AAC in MP4."
        )
    context.options = {"max_pixels": str(policy.max_pixels)}
    return (
        _mp3_frames(container, track, label)
        if container.format.name == "mp3"
        else iter(container.decode(track))
    )


def _mp3_frames(container: Any, track: Any, label: str) -> Iterator[Any]:
    """Yield the frames of an MP3 file and skip damaged ones, as players do.

    Raises AntiphonError if more than one frame in MOST_DAMAGED is damaged.
    """
    import av

    damaged = packets = 0
    for packet in container.demux(track):
        packets += 1
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            damaged += 1
    if damaged * MOST_DAMAGED > packets:
        raise InvalidInput(
            f"{label} cannot be read as audio ({damaged:,} of its {packets:,} MP3 frames are damaged); "
            "give a whole recording."
        )


class _OtherFile(Exception):
    """FFmpeg asked for a file other than the given media."""


def _refuse(url: str, flags: int, options: dict[str, Any]) -> NoReturn:
    raise _OtherFile
