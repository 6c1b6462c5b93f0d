"""What `scripts/evaluate.py` measures speech with: synthesisers, recognisers, one normaliser of text, and the measures of the quality table."""
