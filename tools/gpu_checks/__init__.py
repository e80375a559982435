"""What `tools/gpu_check.py` runs on a GPU, and how: parts, each in a process of its own, and their report."""
