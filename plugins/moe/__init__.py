"""Sparse mixture-of-experts feed-forward network (SwiGLU experts), one node per block."""
