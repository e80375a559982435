"""The training engine: it owns numbers (precision, steps, metrics, checkpoints), and takes pixels from `loaders`."""
