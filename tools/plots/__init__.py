"""Pictures that the commands draw, one module each."""
