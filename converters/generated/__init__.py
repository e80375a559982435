"""The generated set: photo-like images for people without data."""
