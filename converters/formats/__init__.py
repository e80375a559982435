"""What goes out: one output a format."""
