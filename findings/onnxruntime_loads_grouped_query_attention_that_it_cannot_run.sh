#!/bin/sh
# ONNX Runtime's GroupQueryAttention takes head sizes that are multiples of 8. Where the shapes of a graph state another size, the session is
# made without a word, and the first run raises: a build that only loads its graph passes, and the first user fails. What one expects:
# all sizes are fixed in the graph, so making the session fails. Needs: python3 with venv, pip. Exits 0 when the behaviour is as told, 1 when
# it is another, 2 when it cannot be tried.
set -eu
RUNTIME=${1:-1.32.0}
ONNX=${2:-1.23.2}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" || exit 2
"$folder/venv/bin/python" -m pip install --quiet --no-compile "onnxruntime==$RUNTIME" "onnx==$ONNX" >"$folder/pip.log" 2>&1 || {
    cat "$folder/pip.log" >&2
    exit 2
}

cat >"$folder/try.py" <<'PY'
import sys

import numpy, onnxruntime
from onnx import TensorProto, helper

HEADS, KEY_HEADS, CAPACITY, TOKENS = 4, 2, 8, 2

def session(dim):
    """A graph of one node, whose head size `dim` all shapes state."""
    rows = {"query": HEADS * dim, "key": KEY_HEADS * dim, "value": KEY_HEADS * dim}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, TOKENS, size]) for name, size in rows.items()]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, KEY_HEADS, CAPACITY, dim]) for name in ("past_key", "past_value")]
    inputs += [helper.make_tensor_value_info("last", TensorProto.INT32, [1]), helper.make_tensor_value_info("total", TensorProto.INT32, [])]
    names = [value.name for value in inputs]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, TOKENS, HEADS * dim])]
    node = helper.make_node("GroupQueryAttention", names, ["output", "present_key", "present_value"], domain="com.microsoft", num_heads=HEADS, kv_num_heads=KEY_HEADS)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

def seen(dim):
    """What making the session and running it once say."""
    try:
        made = session(dim)
    except Exception as error:
        return f"not made: {str(error)[-60:]}"
    feeds = {value.name: numpy.zeros(value.shape, numpy.float32) for value in made.get_inputs() if value.type == "tensor(float)"}
    try:
        made.run(None, feeds | {"last": numpy.array([TOKENS - 1], numpy.int32), "total": numpy.array(TOKENS, numpy.int32)})
    except Exception as error:
        return "made; the run raises: head_size must be a multiple of 8" if "head_size must be a multiple of 8" in str(error) else f"made; {error}"
    return "made; runs"

found = {dim: seen(dim) for dim in (8, 12, 16, 20)}
for dim, told in found.items():
    print(f"seen: head size {dim}: {told}")
refused = "made; the run raises: head_size must be a multiple of 8"
sys.exit(0 if found == {8: "made; runs", 12: refused, 16: "made; runs", 20: refused} else 1)
PY

echo "version: onnxruntime $RUNTIME, onnx $ONNX, $(python3 --version)"
echo "behaviour: a session with GroupQueryAttention of a head size that is no multiple of 8 is made; its first run raises InvalidArgument"
status=0
HOME=$folder ORT_DISABLE_TELEMETRY=1 "$folder/venv/bin/python" "$folder/try.py" 2>"$folder/errors" || status=$?
grep -q Traceback "$folder/errors" && cat "$folder/errors" >&2 && exit 2
exit $status
