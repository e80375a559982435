"""How weights move: optimizers, learning rates over time, which batches make an update, averages of weights."""
