"""What a packed folder holds: verified, told, drawn."""
