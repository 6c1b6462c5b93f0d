"""Compiled kernels at run time: their launch contracts as plain data, and a launcher that needs no Triton or
torch.
"""
