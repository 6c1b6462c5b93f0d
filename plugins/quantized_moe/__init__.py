"""Sparse mixture of experts whose weights are FP8, INT8 or INT4 with scales, one node per block."""
