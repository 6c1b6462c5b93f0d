"""The gated delta rule: linear attention whose state is one matrix per value head."""
