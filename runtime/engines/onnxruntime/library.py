"""The one place that imports ONNX Runtime, after the environment says that it reports nothing to its maker.

Its wheels for Linux and macOS write a device id and a database of events into the user's cache folder while
they are imported, and send the events later, unless ORT_DISABLE_TELEMETRY is set before;
`disable_telemetry_events` comes after the files. Windows does not read the variable: there events go to the
system's own tracing, and the function is what there is. What was seen of which version: docs/privacy.md.
"""

from __future__ import annotations

import os

VARIABLE = "ORT_DISABLE_TELEMETRY"
OFF = ("1", "true", "yes", "on")
"""The values, in any case, that ONNX Runtime takes as a wish for silence; any other leaves its reports on."""

os.environ.setdefault(VARIABLE, "1")  # what the user says with it stays

import onnxruntime as onnxruntime  # noqa: E402

if os.environ[VARIABLE].strip().lower() in OFF:
    onnxruntime.disable_telemetry_events()
