#!/bin/sh
# A WAV of GSM 6.10 with an odd number of blocks (65 bytes, 320 samples each) has a byte of padding behind its data, as every RIFF chunk of odd length.
# libsndfile takes that byte for one more block and reads 320 samples more, of sound that nobody recorded (up to full scale), also from files it wrote itself.
# FFmpeg reads the whole blocks; neither stops at the length in the `fact` chunk. Needs: python3 with venv, pip. Exits 0 when the behaviour is as told, 1 when
# it is another, 2 when it cannot be tried.
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

print(f"version: libsndfile {soundfile.__libsndfile_version__} (soundfile {soundfile.__version__}), av {av.__version__}, Python {platform.python_version()}")
print("behaviour: behind a quiet GSM 6.10 WAV of an odd number of blocks libsndfile reads 320 samples that are not in it, and no silence")
as_told = True
for samples in (320, 640, 4000, 4480):
    target = io.BytesIO()
    quiet = (1000 * numpy.sin(numpy.arange(samples) / 7)).astype("int16")
    soundfile.write(target, quiet, 8000, format="WAV", subtype="GSM610")
    data = target.getvalue()
    fact = struct.unpack_from("<I", data, data.index(b"fact") + 8)[0]
    read = soundfile.read(io.BytesIO(data), dtype="int16")[0]
    with av.open(io.BytesIO(data)) as container:
        ffmpeg = sum(frame.samples for frame in container.decode(audio=0))
    blocks = -(-samples // 320)
    loudest = [int(abs(part.astype(int)).max(initial=0)) for part in (read[: blocks * 320], read[blocks * 320 :])]
    print(f"seen: {samples} samples, {blocks} blocks, fact {fact}: FFmpeg {ffmpeg}, libsndfile {len(read)}, loudest {loudest[0]}, behind the end {loudest[1]}")
    as_told &= fact == samples and ffmpeg == blocks * 320 and len(read) == (blocks + blocks % 2) * 320
    as_told &= loudest[0] < 2000 and (loudest[1] > 1000) == (blocks % 2 == 1)
sys.exit(0 if as_told else 1)
PY
"$folder/venv/bin/python" "$folder/try.py" 2>"$folder/errors" || {
    status=$?
    cat "$folder/errors" >&2
    grep -q Traceback "$folder/errors" && exit 2
    exit $status
}
