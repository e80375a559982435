"""What finished runs say together: spread over seeds, and agreement of the loaders."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.reporting.run_folder import CLOCK_FIELDS

from .runs import AccuracySettings, Trained

SUMMARISED = ("eval_top1", "eval_top5", "train_loss")
_CURVES = ("epoch", "eval_top1", "eval_top5", "eval_loss", "train_loss", "ids_sha256")
_MEDIANS = ("images_per_s", "data_wait_share")  # over the epochs
_ABOUT = ("python", "platform", "versions", "commit", "cpus", "gpus")


@dataclass(frozen=True)
class OverSeeds:
    """A figure of the last epoch over the seeds of one loader. `deviation` is the sample's; None of one seed."""

    mean: float
    deviation: float | None
    lowest: float
    highest: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "OverSeeds":
        """Raises ValueError where there are no values."""
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), deviation, min(values), max(values), len(values))


def result(settings: AccuracySettings, runs: Sequence[Trained], skipped: Mapping[str, str]) -> dict[str, Any]:
    """Everything as plain data, for JSON. `runs` are one or more, of one configuration but for loader and seed."""
    loaders = list(dict.fromkeys(run.loader for run in runs))
    seeds = list(dict.fromkeys(run.seed for run in runs))
    by_loader = {loader: [run for run in runs if run.loader == loader] for loader in loaders}
    config = runs[0].config
    return {
        "settings": {
            "config": settings.preset,
            "model": config.model.name,
            "precision": config.execution.precision,
            "num_epochs": config.epochs,
            "num_images": runs[0].epochs[-1]["num_images"],
            "num_evaluated": runs[0].epochs[-1]["num_evaluated"],
            "data": settings.data.name if settings.data else config.data.path,
            "loaders": loaders,
            "seeds": seeds,
            "threads": settings.num_threads,
            "workers": settings.num_workers,
        },
        "runs": [_run(run) for run in runs],
        "commits": _named(runs, lambda run: run.environment["commit"] or "not known"),
        "loaders": {
            loader: {key: asdict(OverSeeds.of([run.epochs[-1][key] for run in of])) for key in SUMMARISED}
            for loader, of in by_loader.items()
        },
        "seeds": {seed: _agreement([run for run in runs if run.seed == seed]) for seed in seeds},
        "agreement": agreement(by_loader),
        "skipped": dict(skipped),
    }


def agreement(by_loader: Mapping[str, Sequence[Trained]]) -> dict[str, Any]:
    """How far loaders differ in top-1, beside how far seeds do.

    largest_of_a_seed   the largest difference between two loaders on the same seed
    largest_of_means    the largest difference between two loaders' means over the same seeds
    largest_over_seeds  the largest difference between two seeds of one loader
    deviation           over seeds, the mean of the loaders' variances under a root; None of one seed
    is_within           whether the means differ by no more than seeds do; None where there is nothing to compare
    """
    top1 = {loader: {run.seed: run.epochs[-1]["eval_top1"] for run in runs} for loader, runs in by_loader.items()}
    shared = set.intersection(*(set(of) for of in top1.values()))
    of_seeds = [[of[seed] for of in top1.values()] for seed in shared]
    means = [statistics.fmean(of[seed] for seed in shared) for of in top1.values()] if shared else []
    variances = [statistics.variance(of.values()) for of in top1.values() if len(of) > 1]
    of_means = _span(means) if len(top1) > 1 and shared else None
    over_seeds = max((_span(list(of.values())) for of in top1.values() if len(of) > 1), default=None)
    return {
        "largest_of_a_seed": max(map(_span, of_seeds)) if len(top1) > 1 and shared else None,
        "largest_of_means": of_means,
        "largest_over_seeds": over_seeds,
        "deviation": statistics.fmean(variances) ** 0.5 if variances else None,
        "is_within": None if of_means is None or over_seeds is None else of_means <= over_seeds,
    }


def _median(epochs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Of the epochs that have that figure: one that was taken up after its last batch trained nothing."""
    told = [record[key] for record in epochs if record[key] is not None]
    return statistics.median(told) if told else None


def _run(run: Trained) -> dict[str, Any]:
    last = run.epochs[-1]
    return {
        "name": run.name,
        "loader": run.loader,
        "seed": run.seed,
        **{key: last[key] for key in (*SUMMARISED, "eval_loss")},
        **{key: _median(run.epochs, key) for key in _MEDIANS},
        "train_s": sum(record["seconds"] for record in run.epochs),
        "resources": last["resources"],
        "load_1_min": run.load_1_min,
        "weights_sha256": run.weights_sha256,
        "environment": {key: run.environment[key] for key in _ABOUT},
        "epochs": [{key: record[key] for key in _CURVES} for record in run.epochs],
    }


def _agreement(runs: Sequence[Trained]) -> dict[str, Any]:
    """Of one seed: which loaders had the same ids, and which gave the same results to the bit."""
    top1 = [run.epochs[-1]["eval_top1"] for run in runs]
    return {
        "difference": _span(top1) if len(top1) > 1 else None,
        "same_ids": _alike(runs, lambda run: [record["ids_sha256"] for record in run.epochs]),
        "same_results": _alike(runs, _results),
    }


def _results(run: Trained) -> Any:
    """All of a run that a clock had no part in: every figure of every epoch, and the weights."""
    figures = [{key: value for key, value in record.items() if key not in CLOCK_FIELDS} for record in run.epochs]
    return figures, run.weights_sha256


def _alike(runs: Sequence[Trained], what: Callable[[Trained], Any]) -> list[list[str]]:
    """The loaders in groups, of which each is equal in `what`."""
    groups: list[tuple[Any, list[str]]] = []
    for run in runs:
        mine = what(run)
        for theirs, names in groups:
            if mine == theirs:
                names.append(run.loader)
                break
        else:
            groups.append((mine, [run.loader]))
    return [names for _, names in groups]


def _named(runs: Sequence[Trained], what: Callable[[Trained], str]) -> dict[str, list[str]]:
    """Names of runs by what they have in common."""
    named: dict[str, list[str]] = {}
    for run in runs:
        named.setdefault(what(run), []).append(run.name)
    return named


def _span(values: Sequence[float]) -> float:
    return max(values) - min(values)
