"""What `profile.py NAME` does, one file a name."""
