"""Code2Wav, codec frames to a waveform: the streaming module and the published names of its tensors."""
