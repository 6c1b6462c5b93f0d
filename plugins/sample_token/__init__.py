"""One id per row of logits, from noise that is given."""
