"""What a run waits for: a meter that is always on, and measurements of each part alone."""
