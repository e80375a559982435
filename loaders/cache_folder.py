"""Where what is made once is kept between runs: compiled code, and the sizes of a folder's images."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """FEEDRATE_CACHE, else feedrate/ in XDG_CACHE_HOME or ~/.cache. Absolute: a compiler works in another folder."""
    own = os.environ.get("FEEDRATE_CACHE")
    if own:
        return Path(os.path.expanduser(own)).absolute()  # noqa: PTH111 (Path's raises where there is no such home)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "feedrate"
