"""The commands that are compared: ours as users run it, and FFCV's writer."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from loaders.errors import FeedrateError

from .process import REPOSITORY
from .side_by_side import Side

# "61.3 s, 8,160 img/s", which excludes starting Python, importing and listing the source; the rate has more digits than
# the seconds where a run is short
_RATE = re.compile(r"^[\d,.]+ s, ([\d,]+) img/s$", re.MULTILINE)


def ours(
    name: str,
    source: Path,
    options: Sequence[str],
    num_workers: int,
    after: Callable[[Path], dict[str, float]] = lambda out: {},
) -> Side:
    """`tools/convert.py folder --source SOURCE --to beton` with these options."""

    convert = [sys.executable, str(REPOSITORY / "tools" / "convert.py"), "folder"]

    def command(out: Path) -> list[str]:
        fixed = ["--source", str(source), "--out", str(out), "--to", "beton"]
        return [*convert, *fixed, *options, "--workers", str(num_workers), "--overwrite"]

    return Side(name, command, own_time, [*convert, "--help"], after)


def own_time(output: str, num_samples: int) -> dict[str, float]:
    """{"write_s"} as tools/convert.py printed it. Raises FeedrateError where it printed none."""
    rate = _RATE.search(output)
    if rate is None:
        raise FeedrateError("tools/convert.py did not print its speed: tools/benchmarks/sides.py must be adapted")
    return {"write_s": num_samples / int(rate[1].replace(",", ""))}


def ffcv(folder: Path, options: Sequence[str], num_workers: int) -> Side:
    """FFCV's `DatasetWriter` over the class folders in `folder`."""
    script = str(Path(__file__).with_name("ffcv_writer.py"))

    def command(out: Path) -> list[str]:
        out.mkdir()
        # -P: this folder is not searched for modules, or its files might stand in for others'
        return [
            *(sys.executable, "-P", script, str(folder), str(out / "train.beton")),
            *(*options, "--workers", str(num_workers)),
        ]

    return Side("ffcv", command, lambda output, num_samples: json.loads(output.splitlines()[-1]))
