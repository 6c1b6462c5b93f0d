"""Codec frames to a waveform: one streaming module, and the names under which its tensors are published."""
