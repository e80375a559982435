"""Where what is made once is kept between runs: compiled code, and the sizes of a folder's images."""

import os
from pathlib import Path

from .home_folder import given_path


def cache_folder() -> Path:
    """FEEDRATE_CACHE, else feedrate/ in XDG_CACHE_HOME or ~/.cache. Absolute: a compiler works in another folder."""
    own = os.environ.get("FEEDRATE_CACHE")
    if own:
        return given_path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "feedrate"
