"""`bench.py ceilings`: the training step alone, in several precisions and layouts, beside other people's loops."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.generated.photos import write_photos

from ..images import repeated
from ..rounds import Rounds
from ..side_by_side import Say
from ..training.job import Job
from ..training.sides import OURS, SIDES
from .turns import Timing, absent, failures, spread, take_turns, times_as_fast

# one random batch stays on the device: files only say how many classes there are, and that a batch of them exists
_NUM_PHOTOS = 16
_WARM_S = 3.0


@dataclass(frozen=True)
class Variant:
    """One way to train. `title` for tables."""

    title: str
    side: str
    precision: str
    channels_last: bool
    compile: bool = False
    cuda_graphs: bool = False


VARIANTS = {
    "bf16": Variant("bf16, channels-last", OURS, "bf16", True),
    "bf16-compiled": Variant("bf16, channels-last, compiled", OURS, "bf16", True, True),
    "bf16-graphs": Variant("bf16, channels-last, compiled, CUDA graphs", OURS, "bf16", True, True, True),
    "torchvision-amp": Variant("torchvision's loop with its --amp: fp16, contiguous", "torchvision", "fp16", False),
    "bf16-contiguous": Variant("bf16, contiguous", OURS, "bf16", False),
    "fp16": Variant("fp16, channels-last", OURS, "fp16", True),
    "torchvision-bf16": Variant("torchvision's loop: bf16, channels-last", "torchvision", "bf16", True),
    "timm-amp": Variant("timm's loop with its --amp: fp16, contiguous", "timm", "fp16", False),
    "timm-bf16": Variant("timm's loop: bf16, channels-last", "timm", "bf16", True),
    "fp16-compiled": Variant("fp16, channels-last, compiled", OURS, "fp16", True, True),
}
REFERENCE = "torchvision-amp"


@dataclass(frozen=True)
class CeilingSettings:
    """What is trained, and how."""

    models: tuple[str, ...]
    variants: tuple[str, ...]
    batch_size: int
    size_px: int
    device: str
    num_threads: int
    timing: Timing


def measure(settings: CeilingSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Run all that is not done yet; `folder` holds what is needed meanwhile."""
    told = {
        "models": settings.models,
        "batch_size": settings.batch_size,
        "size_px": settings.size_px,
        "device": settings.device,
        "threads": settings.num_threads,
        "seconds": settings.timing.seconds,
        "windows": settings.timing.num_windows,
    }
    rounds = Rounds(folder, {**told, "variants": settings.variants})
    write_photos(folder / "photos", {"train": _NUM_PHOTOS})
    repeated(folder / "photos", -(-settings.batch_size // _NUM_PHOTOS), folder / "images")
    jobs = {
        f"{model} {name}": _job(settings, folder, model, VARIANTS[name])
        for model in settings.models
        for name in settings.variants
    }
    told["missing_runs"] = take_turns(jobs, settings.timing, rounds, say)
    told |= {"rounds": settings.timing.num_rounds, "in_one_go": not rounds.were_begun}
    return {
        "settings": told,
        "sides": {name: SIDES[name].title for name in {VARIANTS[variant].side for variant in settings.variants}},
        "models": {model: result(model, settings, rounds.done) for model in settings.models},
        "failed": failures(jobs, settings.timing.num_rounds, rounds.done),
    }


def _job(settings: CeilingSettings, folder: Path, model: str, variant: Variant) -> Job:
    return Job(
        side=variant.side,
        images=str(folder / "images" / "train"),
        packed=str(folder / "images"),
        folder=str(folder / "run"),
        size_px=settings.size_px,
        batch_size=settings.batch_size,
        precision=variant.precision,
        channels_last=variant.channels_last,
        device=settings.device,
        num_threads=settings.num_threads,
        num_workers=1,
        seconds=settings.timing.seconds,
        warm_s=min(_WARM_S, settings.timing.seconds),
        model=model,
        feeds=("resident",),
        num_windows=settings.timing.num_windows,
        compile=variant.compile,
        cuda_graphs=variant.cuda_graphs,
    )


def result(model: str, settings: CeilingSettings, done: Mapping[str, Any]) -> dict[str, Any]:
    """Of each variant its spread and how many times as fast as torchvision's loop with AMP it trains."""
    num_rounds = settings.timing.num_rounds
    reasons = {name: absent(f"{model} {name}", num_rounds, done) for name in settings.variants}
    times = {
        name: spread(f"{model} {name}", "resident", num_rounds, done) for name, reason in reasons.items() if not reason
    }
    reference = times.get(REFERENCE)
    return {
        "variants": {
            name: {
                "title": VARIANTS[name].title,
                "s_per_image": found,
                "times_reference": times_as_fast(found, reference) if reference else None,
            }
            for name, found in times.items()
        },
        "skipped": {name: reason for name, reason in reasons.items() if reason},
    }
