"""What is found by trying before a run: the largest batch, and a learning rate."""
