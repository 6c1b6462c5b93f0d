"""Codec frames to a waveform: one streaming module for both families, and the names under which its tensors are published."""
