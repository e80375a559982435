"""Pack a data set once, so that loaders can read it fast.

python tools/convert.py imagenet|cifar10|cifar100|folder|synthetic [--source DIR] [--out DIR] [--option value …]
python tools/convert.py verify|show OUT

The source is read in place and once; OUT gets one or several formats (--to beton,shards,raw) and manifest.json.
Interrupted in any way, the same command goes on where it stopped; nothing has its final name before all is written.
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def download(dataset: str, folder: Path) -> None:
    """Let torchvision fetch the archive; it checks the archive's MD5, and does nothing where it is there."""
    from torchvision.datasets import CIFAR10, CIFAR100  # takes seconds: only for those who ask

    from loaders.errors import FeedrateError

    try:
        {"cifar10": CIFAR10, "cifar100": CIFAR100}[dataset](folder, download=True)
    except (OSError, RuntimeError) as error:
        raise FeedrateError(
            f"{dataset} could not be downloaded ({error}): fetch it by hand and name its folder with --source"
        ) from error


if __name__ == "__main__":  # worker processes import this file as well, and need nothing of it
    if sys.flags.safe_path:
        sys.path.append(str(REPOSITORY))  # tools/ is not installed
    else:
        # Python put tools/ first, where `profile.py` hides the standard library's
        sys.path[0] = str(REPOSITORY)

    from engine.safeguards.early_end import end_early

    end_early()  # the import below takes a second

    from converters.command import main

    sys.exit(main(sys.argv[1:], __doc__, download))
