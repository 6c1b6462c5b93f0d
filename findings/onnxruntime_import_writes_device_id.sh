#!/bin/sh
# Importing ONNX Runtime writes a device id and a database of events into the user's cache folder; ORT_DISABLE_TELEMETRY=1 stops it, DO_NOT_TRACK=1 and
# ORT_DISABLE_TELEMETRY=off do not, and disable_telemetry_events() comes too late. Every process here ends before the library's first attempt to send, and has
# no network at all where the system lets a user take it away. Needs: Linux, python3 with venv, pip. Exits 0 when the behaviour is as told, 1 when it is another, 2 when it cannot be tried.
set -eu
VERSION=${1:-1.32.0}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" && "$folder/venv/bin/python" -m pip install --quiet "onnxruntime==$VERSION" >"$folder/pip.log" 2>&1 || {
    cat "$folder/pip.log" >&2
    exit 2
}

alone=
if unshare -rn true 2>/dev/null; then alone="unshare -rn"; fi

# left_by NAME=VALUE CODE: the files that an import, and CODE after it, leave in an empty home folder
left_by() {
    rm -rf "$folder/home" && mkdir "$folder/home"
    (cd "$folder/home" && $alone env -i PATH="$PATH" HOME="$folder/home" "$1" "$folder/venv/bin/python" -c "import onnxruntime; $2")
    (cd "$folder/home" && find . -type f | LC_ALL=C sort | tr '\n' ' ')
}

kept="./.cache/Microsoft/DeveloperTools/.onnxruntime/deviceid ./.cache/Microsoft/DeveloperTools/.onnxruntime/onnxruntime.db "
echo "version: onnxruntime $VERSION, $(python3 --version), $(uname -sm)"
echo "behaviour: 'import onnxruntime' alone writes deviceid and onnxruntime.db below ~/.cache"
status=0
check() {
    seen=$(left_by "$1" "$2")
    echo "seen: $1, import onnxruntime; $2: ${seen:-nothing}"
    [ "$seen" = "$3" ] || status=1
}
check UNRELATED=1 pass "$kept"
check UNRELATED=1 "onnxruntime.disable_telemetry_events()" "$kept"
check DO_NOT_TRACK=1 pass "$kept"
check ORT_DISABLE_TELEMETRY=off pass "$kept"
check ORT_DISABLE_TELEMETRY=1 pass ""
check CI=1 pass ""
exit $status
