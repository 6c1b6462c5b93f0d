"""SampleToken: one id per row of logits, from given noise."""
