"""What a change does to one side alone, for `what_if`: short turns of the step or of the loader, never of the loop.

Each is measured in turns with what is configured now, and only the ratio is kept: a machine that has grown slower since
the profile slows both. Of another format, both sides of that ratio run over the same images, stored as now and stored
anew; a model of bytes and pixels carries it from them to the whole set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from loaders.choose import LOADER_NAMES, choose_loader
from loaders.errors import FeedrateError

from ..config import Config
from ..dist import Ranks
from .decode_model import DecodeModel, StoredImages, fit_decode_model
from .measure import Tell
from .record import Profile, Rate
from .trials import Trial, measure_trials
from .what_if import Change

_DOUBT = 0.015  # of a side measured by itself
_DOUBT_OF_SAMPLES = 0.5  # spread of images' costs, as a share, over the square root of their number
THE_STEP, THE_LOADER = "the step", "the loader"


@dataclass(frozen=True)
class FormatSample:
    """Some of the set's images as they would be packed, and what they are like.

    path     where they lie, packed;  text  the format in words;  how  what packs the whole set so
    """

    path: str
    text: str
    how: str
    images: StoredImages


@dataclass(frozen=True)
class FormatSamples:
    """The same images in several formats.

    now      as they are stored;  whole_set  what all of the set's are like, as they are stored
    formats  others, by name;  count  images in each
    """

    now: FormatSample
    formats: Mapping[str, FormatSample]
    whole_set: StoredImages
    count: int


class Calibration:
    """Changes of the batch, the loader and the format.

    trials   what must be measured for them, all in the same turns;  refused  why others are not tried
    """

    def __init__(self, profile: Profile, config: Config, samples: FormatSamples | None) -> None:
        self._config = config
        self._samples = samples
        self._batches, refused = _batch_sizes(config, profile)
        self._loaders, more = other_loaders(profile)
        self.refused = [*refused, *more]
        trials = [Trial(THE_STEP, config, "step"), Trial(THE_LOADER, config, "loader")]
        trials += [Trial(f"batch {size}", with_batch(config, size), "step") for size in self._batches]
        trials += [Trial(f"loader {name}", replace(config, loader=name), "loader") for name in self._loaders]
        if samples is not None:
            views = config.data.views
            of_samples = with_batch(config, min(config.data.batch_size, max(1, samples.count // 4 // views) * views))
            stored = {"now": samples.now, **samples.formats}
            trials += [
                Trial(f"format {name}", with_path(of_samples, sample.path), "loader") for name, sample in stored.items()
            ]
        self.trials = trials

    def changes(self, rates: Mapping[str, Rate]) -> list[Change]:
        """Those whose trials are among the measured ones, and what is now as well."""
        step, loader = rates.get(THE_STEP), rates.get(THE_LOADER)
        found = [
            Change(f"batch of {size:,}", {"data.batch_size": size}, step=_over(rate, step), doubt=_DOUBT)
            for size in self._batches
            if step and (rate := rates.get(f"batch {size}"))
        ]
        found += [
            Change(text, {"loader": name}, loading=_over(rate, loader), doubt=_DOUBT)
            for name, text in self._loaders.items()
            if loader and (rate := rates.get(f"loader {name}"))
        ]
        if self._samples is not None and "format now" in rates:
            found += _format_changes(self._config, self._samples, rates)
        return found


def calibrated_changes(
    profile: Profile,
    config: Config,
    ranks: Ranks,
    samples: FormatSamples | None,
    seconds: float,
    rounds: int,
    tell: Tell,
) -> tuple[list[Change], list[str]]:
    """Changes of the batch, the loader and the format, measured in about `seconds`: (changes, why not others)."""
    calibration = Calibration(profile, config, samples)
    rates, failed = measure_trials(calibration.trials, ranks, seconds, rounds, tell)
    return calibration.changes(rates), [*calibration.refused, *(f"{name}: {why}" for name, why in failed.items())]


def other_loaders(profile: Profile) -> tuple[dict[str, str], list[str]]:
    """Loaders that could take the place of the configured one, with the change in words, and why others could not."""
    found, refused = {}, []
    on_gpu = profile.subject.device != "cpu"
    for name in LOADER_NAMES:
        gpu_decode = on_gpu and name == "dali"  # the one loader that decodes there
        if name == "synthetic":
            continue  # it loads no images
        if name == profile.subject.loader:
            refused += [f"GPU decode: loader '{name}' decodes there already"] * gpu_decode
        elif name == "resident":
            refused.append("loader resident: it decodes the whole set before its first batch: no short turn shows it")
        else:
            try:
                choose_loader(name)
                found[name] = f"loader {name}" + " (GPU decode)" * gpu_decode
            except FeedrateError as error:
                refused.append("GPU decode: " * gpu_decode + str(error))
    return found, refused


def with_batch(config: Config, size: int) -> Config:
    """The same with another global batch."""
    return replace(config, data=replace(config.data, batch_size=size))


def with_workers(config: Config, workers: int) -> Config:
    """The same with another number of workers a rank."""
    return replace(config, data=replace(config.data, workers=workers))


def with_path(config: Config, path: str) -> Config:
    """The same over all of what lies elsewhere, each sample alike: what is chosen of the set was chosen before."""
    return replace(
        config,
        data=replace(config.data, path=path, subset=1.0, classes=(), sampling="uniform", weights=""),
    )


def _batch_sizes(config: Config, profile: Profile) -> tuple[list[int], list[str]]:
    """Half and twice the batch, and why not where the set or the views of a batch do not allow it."""
    now, views = config.data.batch_size, config.data.views
    together, images = views * profile.subject.world_size, views * profile.subject.num_samples
    found, refused = [], []
    for size in (now // 2, 2 * now):
        if size % together or not size:
            refused.append(f"batch {size}: it must be a multiple of {together} and above 0")
        elif size > images:
            refused.append(f"batch {size}: an epoch has {images:,} images")
        else:
            found.append(size)
    return found, refused


def _format_changes(config: Config, samples: FormatSamples, rates: Mapping[str, Rate]) -> list[Change]:
    now = rates["format now"]
    there = {name: sample for name, sample in samples.formats.items() if f"format {name}" in rates}
    measured = [(samples.now.images, 1e6 / now.median)]
    measured += [(sample.images, 1e6 / rates[f"format {name}"].median) for name, sample in there.items()]
    model = fit_decode_model(measured)
    doubt = (_DOUBT**2 + _DOUBT_OF_SAMPLES**2 / samples.count) ** 0.5
    found = []
    for name, sample in there.items():
        whole, factor = carried(model, samples, sample)
        ratio = tuple(factor * value for value in _over(rates[f"format {name}"], now))
        path = f"{config.data.path.rstrip('/')}-{name}"
        text = f"{sample.text} ({sample.how})"
        found.append(
            Change(text, {"data.path": path}, loading=ratio, bytes_per_image=whole.num_bytes, doubt=doubt, format=name)
        )
    return found


def carried(model: DecodeModel, samples: FormatSamples, sample: FormatSample) -> tuple[StoredImages, float]:
    """From a sample to the whole set: what its images would be like in that format, and the factor by which the ratio
    of rates (anew / now) differs from the sample's."""
    of_set, now, new = samples.whole_set, samples.now.images, sample.images
    whole = new.scaled(of_set.num_bytes / now.num_bytes, of_set.num_pixels / now.num_pixels)
    slower_now = model.cost_us(of_set) / model.cost_us(now)
    slower_new = model.cost_us(whole) / model.cost_us(new)
    return whole, slower_now / slower_new


def _over(rate: Rate, now: Rate) -> tuple[float, ...]:
    return tuple(new / old for new, old in zip(rate.rounds, now.rounds, strict=True))
