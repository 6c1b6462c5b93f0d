"""Depthwise causal convolution over channels-last rows; the preceding rows are its state."""
