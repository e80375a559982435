"""Models: what there is by name, where their weights come from, and what is done to them before training."""
