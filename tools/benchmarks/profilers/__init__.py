"""Profilers beside each other on a training script with planted bottlenecks: `bench.py profilers`."""
