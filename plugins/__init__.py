"""The ops of the domain `ai.antiphon`: what standard ONNX cannot say well, one folder an op.

Each folder holds `reference` (NumPy, the meaning), `function` (the same meaning as an ONNX model-local function, so that a portable
graph runs in plain ONNX Runtime), `torch_op` (the op inside stage modules, and its translation at export) and one `lower_TARGET`
file for every target that has something better than the function. `registry.OPS` lists them.
"""
