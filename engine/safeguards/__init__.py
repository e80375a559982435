"""What may happen to a run: signals, hangs, losses that are no numbers, memory that runs out."""
