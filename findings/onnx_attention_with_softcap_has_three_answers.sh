#!/bin/sh
# One ONNX file of opset 23, whose Attention has a softcap and a mask, means another thing to each of three programs, because the operator's text was changed
# within its version (the softcap moved before the mask): ONNX Runtime up to 1.26 lets a masked key through, later ones do not; the scores of
# qk_matmul_output_mode 1 became others; and onnx's own reference evaluator gives the capped scores where mode 0 says the plain product. Needs: python3 with
# venv, pip. Exits 0 when the behaviour is as told, 1 when it is another, 2 when it cannot be tried.
set -eu
OLD=${1:-1.26.0}
NEW=${2:-1.32.0}
ONNX=${3:-1.23.2}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
install() {
    python3 -m venv "$folder/$1" && "$folder/$1/bin/python" -m pip install --quiet --no-compile "onnxruntime==$2" "onnx==$ONNX" >"$folder/pip.log" 2>&1 || {
        cat "$folder/pip.log" >&2
        exit 2
    }
}
install old "$OLD"
install new "$NEW"

cat >"$folder/try.py" <<'PY'
import sys

import numpy, onnx
from onnx import TensorProto, helper

def model(mode):
    """One query and two keys, both with the product 3; the second key is masked out. The first value is 0, the second 100; the scores are capped at 2."""
    node = helper.make_node("Attention", ["query", "key", "value", "mask"], ["output", "", "", "scores"], scale=1.0, softcap=2.0, qk_matmul_output_mode=mode)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, rows, 1]) for name, rows in (("query", 1), ("key", 2), ("value", 2))]
    inputs.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, [1, 2]))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 1, columns]) for name, columns in (("output", 1), ("scores", 2))]
    made = helper.make_model(helper.make_graph([node], "attention", inputs, outputs), opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    return made

def of_runtime(made, feeds):
    import onnxruntime

    return onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)

def of_reference(made, feeds):
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(made).run(None, feeds)

feeds = {
    "query": numpy.full((1, 1, 1, 1), 3, "float32"), "key": numpy.ones((1, 1, 2, 1), "float32"),
    "value": numpy.array([0, 100], "float32").reshape(1, 1, 2, 1), "mask": numpy.array([[True, False]]),
}
run = {"runtime": of_runtime, "reference": of_reference}[sys.argv[1]]
(output, plain), (_, capped) = run(model(0), feeds), run(model(1), feeds)
print(f"output {output.item():.3g}, scores in mode 0 {plain.flat[0]:.3g} and {plain.flat[1]:.3g}, in mode 1 {capped.flat[0]:.3g} and {capped.flat[1]:.3g}")
PY

echo "version: onnxruntime $OLD and $NEW, onnx $ONNX, $(python3 --version)"
echo "behaviour: a masked key adds 2.17 to the output in $OLD and nothing in $NEW; mode 1 gives other scores; the reference caps those of mode 0"
status=0
check() { # check TITLE ENVIRONMENT PROGRAM EXPECTED
    seen=$(HOME=$folder ORT_DISABLE_TELEMETRY=1 "$folder/$2/bin/python" "$folder/try.py" "$3") || exit 2
    echo "seen: $1: $seen"
    [ "$seen" = "$4" ] || status=1
}
check "onnxruntime $OLD" old runtime "output 2.17, scores in mode 0 3 and 3, in mode 1 3 and -3.4e+38"
check "onnxruntime $NEW" new runtime "output 0, scores in mode 0 3 and 3, in mode 1 1.81 and 1.81"
check "onnx $ONNX, reference" new reference "output 0, scores in mode 0 1.81 and 1.81, in mode 1 1.81 and 1.81"
exit $status
