#!/bin/sh
# onnxscript's optimize_for_ort fuses an addition and the normalisation behind it into one node and puts it in the place of the normalisation. Where another
# node reads the sum before that, it now stands in front of the node that makes its input: a valid model comes back as one that onnx.checker refuses. ONNX
# Runtime orders the nodes itself and runs it. Needs: python3 with venv, pip. Exits 0 when the behaviour is as told, 1 when it is another, 2 when it cannot be
# tried.
set -eu
VERSION=${1:-0.7.2}
IR=${2:-1.1.0}
ONNX=${3:-1.23.2}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" || exit 2
"$folder/venv/bin/python" -m pip install --quiet --no-compile "onnxscript==$VERSION" "onnx_ir==$IR" "onnx==$ONNX" >"$folder/pip.log" 2>&1 || {
    cat "$folder/pip.log" >&2
    exit 2
}

cat >"$folder/try.py" <<'PY'
import sys

import onnx, onnx_ir
from onnxscript.rewriter.ort_fusions import optimize_for_ort

MODEL = """<ir_version: 10, opset_import: ["" : 23]>
g (float[b, t, 8] x, float[b, t, 8] skip, float[8] scale, float[8] bias) => (float[b, t, 8] normed, float[b, t, 8] negative) {
    %s
}"""
SUM, NORM, READER = "sum = Add (x, skip)", "normed = LayerNormalization <axis = -1> (sum, scale, bias)", "negative = Neg (sum)"

def optimized(*nodes):
    """The order of the nodes after optimize_for_ort, and whether onnx.checker accepts them."""
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(MODEL % "\n    ".join(nodes)))
    onnx.checker.check_model(model, full_check=True)
    found, _ = optimize_for_ort(onnx_ir.from_proto(model))
    order = [node.op_type for node in found.graph]
    try:
        onnx.checker.check_model(onnx_ir.to_proto(found))
    except onnx.checker.ValidationError as error:
        return order, " ".join(str(error).split())[:46]
    return order, "accepted"

after, before = optimized(SUM, NORM, READER), optimized(SUM, READER, NORM)
print(f"seen: read behind the normalisation: {after[0]}, {after[1]}")
print(f"seen: read before the normalisation: {before[0]}, {before[1]}")
refused = "Nodes in a graph must be topologically sorted"
as_told = after == (["SkipLayerNormalization", "Neg"], "accepted") and before[0] == ["Neg", "SkipLayerNormalization"] and before[1].startswith(refused)
sys.exit(0 if as_told else 1)
PY

echo "version: onnxscript $VERSION, onnx_ir $IR, onnx $ONNX, $(python3 --version)"
echo "behaviour: a reader of a sum that stands before the fused normalisation stays before the node that now makes the sum; onnx.checker refuses the model"
status=0
HOME=$folder "$folder/venv/bin/python" "$folder/try.py" 2>"$folder/errors" || status=$?
grep -q Traceback "$folder/errors" && cat "$folder/errors" >&2 && exit 2
exit $status
