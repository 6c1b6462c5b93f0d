"""Graph passes, one a file. A pass takes an `onnx_ir.Model`, changes it in place and returns how many places it changed."""
