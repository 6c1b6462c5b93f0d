"""Graph passes, one per file. Each changes an `onnx_ir.Model` in place and returns the number of changes."""
