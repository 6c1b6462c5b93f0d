"""Depthwise causal convolution over channels-last rows, with the rows before them as state."""
