"""Compiled kernels at run time: launch contracts as plain data, and what launches them on a GPU without Triton or torch."""
