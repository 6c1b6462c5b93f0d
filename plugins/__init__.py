"""The ops of the domain `ai.antiphon`: operations that standard ONNX expresses badly. Each op has a folder.

A folder holds `reference` (NumPy; it defines the op), `function` (the same computation as an ONNX model-local
function, so that a portable graph runs in plain ONNX Runtime), `torch_op` (the op inside stage modules, and
its translation at export) and a `lower_TARGET` file for every target that has a better implementation than
the function. `registry.OPS` lists the ops.
"""
