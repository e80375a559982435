"""What it costs to be always told where the time goes: `bench.py profiler-overhead`."""
