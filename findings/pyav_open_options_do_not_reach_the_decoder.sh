#!/bin/sh
# PyAV documents `options` of av.open as passed "to the container and all streams", but they end with the probe: max_pixels there bounds no frame that is
# decoded (it only makes the probe of an MPEG-4 stream fail silently, whose width then reads 0), and skip_frame skips none. Options of a decoder act in
# codec_context.options. Needs: python3 with venv, pip. Exits 0 when the behaviour is as told, 1 when it is another, 2 when it cannot be tried.
set -eu
VERSION=${1:-18.1.0}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/python" -m pip install --quiet "av==$VERSION" numpy >"$folder/pip.log" 2>&1 || {
    cat "$folder/pip.log" >&2
    exit 2
}

cat >"$folder/try.py" <<'PY'
import io, platform, sys

import av, numpy

av.logging.set_level(av.logging.PANIC)

def film(codec):
    """Five frames of 128 x 96 pixels, of which the first is a key frame."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for grey in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numpy.full((96, 128, 3), grey, "uint8"), "rgb24")))
        container.mux(stream.encode())
    return target.getvalue()

def decoded(data, at_open, in_codec):
    """The width that the stream states, and the number of frames or the error of decoding."""
    with av.open(io.BytesIO(data), options=at_open) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = in_codec
        width = stream.width
        try:
            return width, len([frame for frame in container.decode(stream) if frame.width == 128])
        except av.error.FFmpegError:
            return width, "refused"

print(f"version: av {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}, Python {platform.python_version()}")
print("behaviour: max_pixels and skip_frame given to av.open change no decoded frame (MPEG-4 states width 0 then), given to codec_context.options they act")
as_told = True
for codec, option, at_open, in_codec in (
    ("mpeg4", {"max_pixels": "1000"}, (0, 5), (128, "refused")),
    ("libx264", {"max_pixels": "1000"}, (128, 5), (128, "refused")),
    ("libx264", {"skip_frame": "nokey"}, (128, 5), (128, 1)),
):
    data = film(codec)
    plain, first, second = decoded(data, {}, {}), decoded(data, option, {}), decoded(data, {}, option)
    print(f"seen: {codec}, width and frames: {plain}; {option} in av.open: {first}; in codec_context.options: {second}")
    as_told &= plain == (128, 5) and first == at_open and second == in_codec
sys.exit(0 if as_told else 1)
PY
"$folder/venv/bin/python" "$folder/try.py" 2>"$folder/errors" || {
    status=$?
    cat "$folder/errors" >&2
    grep -q Traceback "$folder/errors" && exit 2
    exit $status
}
