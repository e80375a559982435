"""What is kept of a run: its state by name, the files, when they are written, and which epoch was best."""
