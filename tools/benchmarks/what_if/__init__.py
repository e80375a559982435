"""How wrong predictions of changes are: `bench.py what-if`."""
