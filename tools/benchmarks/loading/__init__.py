"""What `bench.py load` runs: the sides, the cases, one run in a process of its own, and what is made of the figures."""
