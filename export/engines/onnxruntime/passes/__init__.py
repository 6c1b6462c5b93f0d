"""Graph passes, one per file. A pass changes an `onnx_ir.Model` in place and returns the number of places."""
