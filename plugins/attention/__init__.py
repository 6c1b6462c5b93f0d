"""Causal grouped-query attention over a cache that is written in place."""
