"""Tools of `scripts/evaluate.py`: synthesisers, recognisers, a text normaliser, and measures of quality."""
