"""What comes in: every form in which people have their images, each read in place."""
