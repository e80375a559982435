"""`bench.py end-to-end`: each loader alone, and what share of the step's own speed training reaches with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loaders.errors import FeedrateError

from ..images import find_photos
from ..loading.cases import Case
from ..loading.data import store
from ..rounds import Rounds
from ..side_by_side import Say
from ..training.job import Job
from ..training.sides import LOADING, OURS
from .turns import Timing, absent, failures, spread, take_turns, times_as_fast

# how the images are stored
FORMS = {
    "full": Case("Full-size JPEGs, their bytes untouched", (), ("--check", "structure", "--seek-points")),
    "400": Case("JPEGs, longest side 400 px (--preset 400)", (), ("--preset", "400")),
    "256": Case("JPEGs, shorter side 256 px (--preset 256)", (), ("--preset", "256")),
    "raw256": Case("Raw pixels, shorter side 256 px", (), ("--preset", "256", "--write-mode", "raw")),
}
LOADERS = ("turbo", "dali", "ffcv", "resident", "torchvision")
_WARM_S = 1.0


@dataclass(frozen=True)
class EndToEndSettings:
    """What is trained from what. `source` None: real photos where there are some, else generated ones.

    alone  whether each loader is measured without the step, too
    """

    model: str
    forms: tuple[str, ...]
    loaders: tuple[str, ...]
    source: Path | None
    repeat: int
    batch_size: int
    size_px: int
    precision: str
    is_compiled: bool
    device: str
    num_threads: int
    num_workers: int
    alone: bool
    timing: Timing


def measure(settings: EndToEndSettings, folder: Path, say: Say) -> dict[str, Any]:
    """Run all that is not done yet; `folder` holds the images, stored in every form, and beside them the rounds of each
    model and forms. Raises FeedrateError where there is too little to measure or to tell."""
    source = settings.source or find_photos(folder, say)
    told = {
        "model": settings.model,
        "images": f"{source.name} × {settings.repeat}",
        "is_generated": source.parent == folder,
        "batch_size": settings.batch_size,
        "size_px": settings.size_px,
        "precision": settings.precision,
        "compiled": settings.is_compiled,
        "device": settings.device,
        "threads": settings.num_threads,
        "workers": settings.num_workers,
        "seconds": settings.timing.seconds,
        "windows": settings.timing.num_windows,
        "alone": settings.alone,
    }
    # of their own, so that measuring another model from these images takes none of them away
    own = folder / "-".join((settings.model, *settings.forms))
    rounds = Rounds(own, {**told, "forms": settings.forms, "loaders": settings.loaders, "source": str(source)})
    if not settings.timing.finished_only:
        rounds.add(_NUM_SAMPLES, _pack(settings, source, folder, say))
    jobs = _jobs(settings, folder)
    missing = take_turns(jobs, settings.timing, rounds, say)
    told |= {"rounds": settings.timing.num_rounds, "in_one_go": not rounds.were_begun, "missing_runs": missing}
    told["num_samples"] = rounds.done.get(_NUM_SAMPLES)
    failed = failures(jobs, settings.timing.num_rounds, rounds.done)
    return {"settings": told, **result(settings, rounds.done), "failed": failed}


_NUM_SAMPLES = "images an epoch"


def _pack(settings: EndToEndSettings, source: Path, folder: Path, say: Say) -> int:
    """Store the images in every form, each below `folder` by its name; how many there are."""
    stored = [store(form, FORMS[form], source, settings.repeat, folder, say) for form in settings.forms]
    if stored[0].num_samples < settings.batch_size:
        raise FeedrateError(f"{source} × {settings.repeat} is {stored[0].num_samples} images, less than one batch")
    return stored[0].num_samples


def _jobs(settings: EndToEndSettings, folder: Path) -> dict[str, Job]:
    jobs = {_CEILING: _job(settings, folder, str(folder / settings.forms[0]), "turbo", ("resident",))}
    feeds = (LOADING, "images") if settings.alone else ("images",)
    for form in settings.forms:
        for loader in settings.loaders:
            jobs[f"{form} {loader}"] = _job(settings, folder, str(folder / form), loader, feeds)
    return jobs


_CEILING = "the step alone"


def _job(settings: EndToEndSettings, folder: Path, packed: str, loader: str, feeds: tuple[str, ...]) -> Job:
    return Job(
        side=OURS,
        images=packed,
        packed=packed,
        folder=str(folder / "run"),
        size_px=settings.size_px,
        batch_size=settings.batch_size,
        precision=settings.precision,
        channels_last=True,
        device=settings.device,
        num_threads=settings.num_threads,
        num_workers=settings.num_workers,
        seconds=settings.timing.seconds,
        warm_s=min(_WARM_S, settings.timing.seconds),
        model=settings.model,
        feeds=feeds,
        num_windows=settings.timing.num_windows,
        compile=settings.is_compiled,
        loader=loader,
    )


def result(settings: EndToEndSettings, done: Mapping[str, Any]) -> dict[str, Any]:
    """The step's ceiling, and by form and loader: the loader's own ceiling, training's rate, and its share.

    Raises FeedrateError where the step alone could not be measured: there is nothing to take a share of.
    """
    num_rounds = settings.timing.num_rounds
    if reason := absent(_CEILING, num_rounds, done):
        raise FeedrateError(f"the step alone could not be measured: {reason}")
    ceiling = spread(_CEILING, "resident", num_rounds, done)
    forms: dict[str, Any] = {}
    for form in settings.forms:
        forms[form] = {"title": FORMS[form].title, "loaders": {}, "skipped": {}}
        for loader in settings.loaders:
            name = f"{form} {loader}"
            if reason := absent(name, num_rounds, done):
                forms[form]["skipped"][loader] = reason
                continue
            together = spread(name, "images", num_rounds, done)
            forms[form]["loaders"][loader] = {
                "alone": spread(name, LOADING, num_rounds, done) if settings.alone else None,
                "together": together,
                "share": times_as_fast(together, ceiling),
                "slower_because": done[f"{name}/1"].get("slower_because", ""),
            }
    return {"ceiling": ceiling, "forms": forms}
