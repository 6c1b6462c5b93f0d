#!/bin/sh
# A recorder that is cut off leaves all its samples behind a header without their length. Which of libsndfile and FFmpeg still reads them depends on the
# container, and neither is the safer one: libsndfile reads such a WAV as empty, without an error, and refuses the CAF, whose length -1 ("to the end of the
# file") is even valid; FFmpeg refuses AIFF and W64. The other one reads all. Needs: python3 with venv, pip. Exits 0 when the behaviour is as told, 1 when it
# is another, 2 when it cannot be tried.
set -eu
SOUNDFILE=${1:-0.14.0}
AV=${2:-18.1.0}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/python" -m pip install --quiet "soundfile==$SOUNDFILE" "av==$AV" >"$folder/pip.log" 2>&1 || {
    cat "$folder/pip.log" >&2
    exit 2
}

cat >"$folder/try.py" <<'PY'
import io, platform, struct, sys

import av, numpy, soundfile

av.logging.set_level(av.logging.PANIC)

def libsndfile(data):
    try:
        return len(soundfile.read(io.BytesIO(data))[0])
    except soundfile.LibsndfileError:
        return "refused"

def ffmpeg(data):
    try:
        with av.open(io.BytesIO(data)) as container:
            return sum(frame.samples for frame in container.decode(audio=0))
    except av.error.FFmpegError:
        return "refused"

def recording(container):
    target = io.BytesIO()
    soundfile.write(target, numpy.arange(4000, dtype="int16"), 16000, format=container, subtype="PCM_16")
    return target.getvalue()

def unfinished(container, chunk, offset, length):
    """A recording of 4,000 samples whose header has `length` (the value before the end is known) where the chunk's length stands."""
    data = recording(container)
    at = data.index(chunk) + offset
    return data[:at] + length + data[at + len(length) :]

print(f"version: libsndfile {soundfile.__libsndfile_version__} (soundfile {soundfile.__version__}), av {av.__version__}, Python {platform.python_version()}")
print("behaviour: of 4,000 samples libsndfile reads 0 of the WAV and refuses the CAF, FFmpeg refuses the AIFF and the W64; the other one reads all of each")
as_told = True
for container, chunk, offset, length, expected in (
    ("WAV", b"data", 4, struct.pack("<I", 0), (0, 4000)),
    ("CAF", b"data", 4, struct.pack(">q", -1), ("refused", 4000)),
    ("AIFF", b"SSND", 4, struct.pack(">I", 0), (4000, "refused")),
    ("W64", b"data\xf3\xac\xd3\x11", 16, struct.pack("<Q", 0), (4000, "refused")),
):
    data, whole = unfinished(container, chunk, offset, length), recording(container)
    seen = libsndfile(data), ffmpeg(data)
    print(f"seen: {container}: libsndfile {seen[0]}, FFmpeg {seen[1]}; with its length {libsndfile(whole)} and {ffmpeg(whole)}")
    as_told &= seen == expected and libsndfile(whole) == ffmpeg(whole) == 4000
sys.exit(0 if as_told else 1)
PY
"$folder/venv/bin/python" "$folder/try.py" 2>"$folder/errors" || {
    status=$?
    cat "$folder/errors" >&2
    grep -q Traceback "$folder/errors" && exit 2
    exit $status
}
