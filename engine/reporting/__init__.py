"""What a run says of itself: its folder, its loggers, the terminal, and what is counted and shown of evaluations."""
