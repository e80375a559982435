"""The parts of the check, those that matter most first: where the time is short, the last are left out."""

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..benchmarks.process import REPOSITORY
from ..benchmarks.rounds import MEASURED
from . import found
from .part import Part, Setting, python

_LONG = REPOSITORY / "data" / "long"
_CIFAR, _IMAGENETTE = _LONG / "cifar10-packed", _LONG / "imagenette-160-packed"
_LOADERS = "turbo,dali,ffcv,resident,torchvision"
_SANITIZER_PATHS = (os.environ.get("PATH", ""), "/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
_TESTED = (*MEASURED, "configs", "tests")
_TEST_S = 90  # after which a test says where it is
_MARKED = re.compile(r"pytest\.mark\.gpu|@on_each_|=on_a_gpu")
_DRY_PRESET = """epochs = 1
[data]
batch_size = 8
eval_batch_size_per_rank = 8
size_px = 16
eval_size_px = 16
eval_resize_px = 18
[model]
name = "cifar_resnet20"
"""


def _smoke(setting: Setting, folder: Path) -> list[str]:
    return python("tools/gpu_smoke.py", setting.device)


def _tests(folders: Sequence[str], of: str):  # type: ignore[no-untyped-def]
    """Those in these folders of tests/, of what `pytest -k` selects. One that hangs, or crashes the process, costs only
    the part that it is in: what passed before stands in its log. Those of DALI, likeliest to, have one of their own."""

    def command(setting: Setting, folder: Path) -> list[str]:
        files = [path for name in folders for path in sorted((REPOSITORY / "tests" / name).rglob("test_*.py"))]
        marked = [path for path in files if _MARKED.search(path.read_text())]
        if setting.is_dry:
            marked = [path for path in marked if ("dali" in path.name) is (of == _DALI)][:1]
        return [*_pytest(folder, setting.is_dry), "-k", of, *map(str, marked)]

    return command


_DALI, _NOT_DALI = "dali", "not dali"


def _sanitized(setting: Setting, folder: Path) -> list[str]:
    sanitizer = ["--tool", "memcheck", "--target-processes", "all", "--error-exitcode", "9"]
    test = str(REPOSITORY / "tests" / "loaders" / "test_transfer.py")
    return [_sanitizer(), *sanitizer, *_pytest(folder, setting.is_dry), test, "-k", "arrive_whole"]


def _pytest(folder: Path, is_dry: bool) -> list[str]:
    words = ["-m", "gpu", "-v", "-p", "no:cacheprovider", "--durations=5", "-o", f"faulthandler_timeout={_TEST_S}"]
    if importlib.util.find_spec("pytest_timeout"):
        words.append(f"--timeout={_TEST_S + 10}")  # after it was said where the test is
    return [
        sys.executable,
        "-m",
        "pytest",
        *words,
        "--junitxml",
        str(folder / (found.DRY_TESTS if is_dry else found.TESTS)),
    ]


def _sanitizer() -> str:
    return shutil.which("compute-sanitizer", path=os.pathsep.join(_SANITIZER_PATHS)) or ""


def _ceilings(model: str, variants: str, num_rounds: int):  # type: ignore[no-untyped-def]
    def command(setting: Setting, folder: Path) -> list[str]:
        words = ["--models", model, "--variants", variants, "--rounds", num_rounds, *_bench(setting, folder)]
        if setting.is_dry:
            words = ["--models", "resnet18", "--variants", variants.split(",")[0], "--rounds", 1]
            words += [*_bench(setting, folder), *_TINY]
        return python("tools/bench.py", "ceilings", *words)

    return command


_TINY = ("--batch-size", 2, "--size-px", 32, "--threads", 1, "--windows", 1, "--seconds", 0.01)


def _end_to_end(model: str, *more: str):  # type: ignore[no-untyped-def]
    def command(setting: Setting, folder: Path) -> list[str]:
        # the images are packed once for all models
        where = [*_bench(setting, folder)[:-1], setting.work / "end-to-end", "--keep-work"]
        where += ["--source", setting.photos] if setting.photos else []
        words = [
            "--model",
            model,
            "--loaders",
            _LOADERS,
            "--repeat",
            30,
            "--rounds",
            1,
            "--seconds",
            0.5,
            *more,
            *where,
        ]
        if setting.is_dry:
            words = [*more, *where, *_TINY, "--model", model, "--forms", "raw256", "--loaders", "turbo,dali"]
            words += ["--repeat", 1, "--precision", "fp32", "--rounds", 1, "--workers", 1]
        return python("tools/bench.py", "end-to-end", *words)

    return command


def _bench(setting: Setting, folder: Path) -> list[object]:
    """Options of every measurement; the working folder last."""
    device = ["--device", setting.device]
    return [*device, *_reporting(folder), "--timeout-s", 300, "--work", folder.with_name(f"{folder.name}-work")]


def _reporting(folder: Path) -> list[object]:
    return ["--report", folder, "--overwrite"]


def _cifar(minutes: float):  # type: ignore[no-untyped-def]
    def command(setting: Setting, folder: Path) -> list[str]:
        # both parts add to the same runs
        words = [*_bench(setting, folder)[:-1], setting.work / "cifar", "--keep-work"]
        words += ["--minutes", minutes, "--runs", 50]
        if setting.is_dry:
            tiny = "--epochs 1 --data.subset 512 --data.eval-subset 100 --data.eval-batch-size-per-rank 50"
            words += ["--runs", 1, "--sides", "feedrate", "--options", f"{tiny} --execution.threads 1"]
        return python("tools/bench.py", "cifar-speed", "--data", _CIFAR, *words)

    return command


def _self_test(setting: Setting, folder: Path) -> list[str]:
    from engine.profiler.self_test.cells import NOTHING, PLANTED, SLOW_RANK  # brings in torch

    # one GPU has one rank
    planted = ["decode", NOTHING] if setting.is_dry else [name for name in PLANTED if name != SLOW_RANK]
    words = ["--device", setting.device, "--quick", "--loaders", "turbo", "--kinds", "spin", *_reporting(folder)]
    words += ["--out", setting.work / "self-test", "--data", setting.work / "self-test-data"]
    words += ["--sizes", "2"] if setting.is_dry else []
    return python("tools/profile.py", "self-test", "--planted", ",".join(planted), *words)


def _utilisation(setting: Setting, folder: Path) -> list[str]:
    words = ["--device", setting.device, "--work", setting.work / "utilisation", "--out", folder / "utilisation.json"]
    words += ["--source", setting.photos] if setting.photos else []
    return python("tools/gpu_checks/utilisation.py", *words)


def _overhead(setting: Setting, folder: Path) -> list[str]:
    words = [*_bench(setting, folder), "--rounds", 2, "--pairs", 6]
    return python("tools/bench.py", "profiler-overhead", *words, *(["--quick", "--cases", "tiny"] * setting.is_dry))


def _imagenette(setting: Setting, folder: Path) -> list[str]:
    where = ["--folder", setting.work / "imagenette-runs", *_reporting(folder), "--timeout-s", 300]
    if setting.is_dry:
        setting.work.mkdir(parents=True, exist_ok=True)
        preset = setting.work / "dry.toml"
        preset.write_text(_DRY_PRESET)
        words = ["--config", preset, "--data", setting.photos, "--loaders", "turbo", "--seeds", 0, "--threads", 1]
        return python("tools/bench.py", "accuracy", *words, "--workers", 1, *where)
    words = ["--config", "imagenette_64", "--data", _IMAGENETTE, "--loaders", _LOADERS, "--seeds", "0,1"]
    return python("tools/bench.py", "accuracy", *words, *where)


def _needs_folder(path: Path):  # type: ignore[no-untyped-def]
    def missing(setting: Setting) -> str:
        return "" if path.is_dir() or (setting.photos and path == _IMAGENETTE) else f"{_short(path)} is not here"

    return missing


def _no_sanitizer(setting: Setting) -> str:
    if setting.device == "cpu":
        return "it looks at what a GPU does"
    return "" if _sanitizer() else "compute-sanitizer is not installed"


def _no_smi(setting: Setting) -> str:
    return "" if shutil.which("nvidia-smi") else "nvidia-smi is not installed"


def _short(path: Path) -> str:
    return str(path).removeprefix(f"{REPOSITORY}/")


_keeping = partial(Part, goes_on=True)
# ours and the references in one layout and precision, and torchvision's as its own script has it
_MAIN_VARIANTS = "bf16,bf16-compiled,bf16-graphs,torchvision-amp,torchvision-bf16,timm-bf16"
_FEW_VARIANTS = "bf16,bf16-compiled,torchvision-amp,torchvision-bf16"
_OTHER_VARIANTS = "fp16,bf16-contiguous,timm-amp,fp16-compiled"

_PRESETS = (*MEASURED, "configs")

# Minutes are guesses until a GPU was seen to need them. What no other part can stand for comes first; the parts up to
# imagenette fit into tools/gpu_check.py's own default.
PARTS = {
    "smoke": Part("DALI and torch share tensors", 0.3, 120, _smoke, found.last_line),
    "tests-loaders": Part(
        "Tests marked gpu, of loaders but DALI", 1.2, 300, _tests(["loaders"], _NOT_DALI), found.tests, code=_TESTED
    ),
    "step-resnet50": _keeping(
        "The step alone, ResNet-50", 3.3, 420, _ceilings("resnet50", _MAIN_VARIANTS, 1), found.ceilings
    ),
    "end-to-end-resnet50": _keeping(
        "Every loader alone, and ResNet-50 end to end",
        4.0,
        480,
        _end_to_end("resnet50", "--forms", "400,raw256"),
        found.end_to_end,
    ),
    "tests-dali": Part(
        "Tests marked gpu, with DALI",
        1.5,
        300,
        _tests(["loaders", "engine", "tools"], _DALI),
        found.tests,
        code=_TESTED,
    ),
    "tests-engine": Part(
        "Tests marked gpu, of engine and tools",
        3.8,
        480,
        _tests(["engine", "tools"], _NOT_DALI),
        found.tests,
        code=_TESTED,
    ),
    "cifar": _keeping(
        "CIFAR-10 beside airbench", 2.1, 330, _cifar(0.8), found.cifar, _needs_folder(_CIFAR), code=_PRESETS
    ),
    "step-resnet18": _keeping(
        "The step alone, ResNet-18", 1.5, 420, _ceilings("resnet18", _FEW_VARIANTS, 1), found.ceilings
    ),
    "end-to-end-resnet18": _keeping(
        "ResNet-18 end to end",
        1.7,
        420,
        _end_to_end("resnet18", "--no-alone", "--forms", "400,raw256"),
        found.end_to_end,
    ),
    "utilisation": Part("GPU utilisation beside nvidia-smi", 1.4, 240, _utilisation, found.utilisation, _no_smi),
    "self-test": Part("The profiler's self-test", 2.5, 360, _self_test, found.self_test, tells_what_is_not_kept=True),
    "imagenette": _keeping(
        "Imagenette by its preset with each loader",
        1.7,
        420,
        _imagenette,
        found.accuracy,
        _needs_folder(_IMAGENETTE),
        code=_PRESETS,
    ),
    "end-to-end-more": _keeping(
        "ResNet-50 end to end, other forms", 2.3, 480, _end_to_end("resnet50", "--forms", "full,256"), found.end_to_end
    ),
    "overhead": Part("What the profiler's clocks cost", 0.8, 300, _overhead, found.overhead),
    "sanitizer": Part(
        "compute-sanitizer over copying to the GPU", 1.0, 240, _sanitized, found.sanitizer, _no_sanitizer, _TESTED
    ),
    "step-more": _keeping(
        "The step alone, other ways", 1.3, 420, _ceilings("resnet50", _OTHER_VARIANTS, 1), found.ceilings
    ),
    "cifar-more": _keeping(
        "CIFAR-10 beside airbench, more runs",
        4.8,
        480,
        _cifar(2.0),
        found.cifar,
        _needs_folder(_CIFAR),
        code=_PRESETS,
    ),
}
