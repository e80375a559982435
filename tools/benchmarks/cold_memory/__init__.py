"""Profiles of a set larger than the memory left for it: `bench.py cold-memory`."""
