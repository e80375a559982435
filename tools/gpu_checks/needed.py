"""What must be importable for the check, and which parts go without what is not: said before anything is measured.

Imports nothing but Python's own library, so that it can say so where all else is missing.
"""

import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Needed:
    """One package by what is imported of it.

    package  that brings the module
    cost     what is left out without it; "" where nothing can be measured
    parts    that cannot run at all without it
    """

    module: str
    package: str
    cost: str = ""
    parts: tuple[str, ...] = ()


NEEDED = (
    Needed("torch", "torch"),
    Needed("torchvision", "torchvision"),
    Needed("numpy", "numpy"),
    Needed("PIL", "pillow"),
    Needed("cv2", "opencv-python-headless"),
    Needed("simplejpeg", "simplejpeg"),
    Needed("scipy", "scipy"),
    Needed("psutil", "psutil"),
    Needed("tyro", "tyro"),
    Needed("tomli_w", "tomli-w"),
    Needed("rich", "rich"),
    Needed("safetensors", "safetensors"),
    Needed("pytest", "pytest", "all tests", ("tests-loaders", "tests-engine", "tests-dali", "sanitizer")),
    Needed("nvidia.dali", "nvidia-dali-cuda120", "loader dali, wherever loaders are compared", ("smoke", "tests-dali")),
    Needed("ffcv", "ffcv", "loader ffcv, wherever loaders are compared"),
    Needed("numba", "numba", "loader ffcv, wherever loaders are compared"),
    Needed("matplotlib", "matplotlib", "what draws pictures", ("self-test", "imagenette")),
    Needed("timm", "timm", "timm's loop beside ours"),
    Needed("pynvml", "nvidia-ml-py", "our own figure of the GPU's use"),
    Needed("airbench", "airbench", "the other side of cifar"),
)


def absent(needed: Iterable[Needed] = NEEDED) -> list[Needed]:
    """Those that are not installed; none is imported to find out."""
    return [one for one in needed if not _is_installed(one.module)]


def refuse(missing: Iterable[Needed]) -> None:
    """End the process with one sentence and status 2 where something is missing that every part needs."""
    packages = [one.package for one in missing if not one.cost]
    if packages:
        print(
            f"error: no part can run without {', '.join(packages)}, not installed for {sys.executable}: install"
            f" {'it' if len(packages) == 1 else 'them'}, or add the folder to PYTHONPATH",
            file=sys.stderr,
        )
        sys.exit(2)


def costs(missing: Iterable[Needed]) -> list[str]:
    """A line for each of the others: which parts, or what of them, are left out."""
    return [
        f"{one.package} is not installed, so this is left out: {one.cost}"
        + f" ({', '.join(one.parts)})" * bool(one.parts)
        for one in missing
        if one.cost
    ]


def why_not(part: str, missing: Iterable[Needed]) -> str:
    """Why the part cannot run for what is missing, or ""."""
    return next((f"{one.package} is not installed" for one in missing if part in one.parts), "")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
