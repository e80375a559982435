"""Every setting of a run: frozen, typed, one default a field, checked when made.

Names carry their unit; `batch_size` is global, over all ranks. The text under a field is its help on the command line.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

from loaders.api import OnBad
from loaders.crops import CenterCrop, Crop, PadCrop, RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.home_folder import expand_home
from loaders.page_cache import PageCache
from loaders.view import View, size_ramp

from .augment.augment_config import AugmentConfig
from .bounds import at_least, between
from .channels import NormalizeBy, refuse_bad_numbers
from .checkpointing.best import BestMetric, refuse_metric_of_no_average
from .models.model_config import ModelConfig
from .optimisation.average import AverageConfig
from .optimisation.optim_config import OptimConfig
from .sampling import SamplingConfig

_LONGEST_NAME = 200  # bytes; file systems take 255


@dataclass(frozen=True)
class DataConfig(SamplingConfig):
    """Which samples, cut how, loaded by how many."""

    path: str = "data/imagenet"
    """Packed folder, .beton file, CIFAR archive or folder of images; see prefer_packed. ~ is the home folder."""
    prefer_packed: bool = True
    """Read PATH-packed, where the converters left what they packed from PATH, in place of PATH."""
    train_split: str = "train"
    eval_split: str = "val"
    expected_classes: int = 0
    """Classes the data must have, so that a preset is not run on another set by mistake; 0: any number."""
    batch_size: int = 256
    """Global: over all ranks."""
    eval_batch_size_per_rank: int = 256
    crop: Literal["random-resized", "pad", "center"] = "random-resized"
    """Of training images. Evaluation always cuts the centre."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the area, for random-resized."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height, for random-resized."""
    padding_px: int = 4
    """Largest shift, for pad."""
    flip_probability: float = 0.5
    flip_alternates: bool = False
    """Mirror each image in every other epoch, with flip_probability in its first: in few epochs it is seen both ways
    more evenly than by chance."""
    size_px: int = 224
    """Side of training images."""
    size_schedule: tuple[tuple[int, int], ...] = ()
    """Progressive resizing in place of size_px: pairs of first epoch, counted from 0, and side."""
    size_ramp: tuple[int, ...] = ()
    """The same in FFCV's form: smallest side, largest side, epoch from which and epoch until which it grows."""
    eval_size_px: int = 224
    eval_resize_px: int = 256
    """The shorter side is thought resized to this before the centre is cut."""
    eval_crop_px: int = 0
    """Side of what is then cut, before it is shown at eval_size_px; 0: eval_size_px. FFCV's recipe shows 224 at 256."""
    eval_flip: bool = False
    """Evaluation averages the model's answers (logits) to each image and to its mirror image, at twice the work."""
    eval_shift_px: int = 0
    """Evaluation also asks for each image shifted by so many pixels up and left, and down and right: a quarter of the
    answer each, at three times the work; 0: not."""
    resize: Literal["auto", "area", "exact", "bicubic", "device"] = "auto"
    """Area averaging; antialiased bilinear (exact) or bicubic, as torchvision's; the bits of exact, computed on the
    device; or the loader's own fastest."""
    normalize: NormalizeBy = "auto"
    """What images are normalised by: the set's own mean and deviation (set), ImageNet's, 127.5 for all (half), or six
    numbers of 0 to 255: means of red, green, blue, then their deviations. auto: set, or imagenet where it has none."""
    workers: int = 0
    """Threads or processes a rank; 0: the processors this rank may use."""
    batches_ahead: int = 3
    page_cache: PageCache = "system"
    """memory: bring the whole packed set into memory at start, once for all ranks of a machine, and keep it there."""
    on_bad: OnBad = "error"
    """A training sample that cannot be delivered ends the run, or another takes its place. Evaluation always ends."""
    max_bad: int = 100
    """Substitutes a rank and epoch; one more ends the run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # here and nowhere later; unlike Path's it changes nothing else, and leaves the folder of nobody as it is
        object.__setattr__(self, "path", expand_home(self.path))
        at_least(1, batch_size=self.batch_size, size_px=self.size_px, eval_size_px=self.eval_size_px)
        # what costs memory or threads for nothing else in the run to limit
        between(1, 65_536, eval_batch_size_per_rank=self.eval_batch_size_per_rank)
        between(1, 1024, batches_ahead=self.batches_ahead)
        between(0, 1024, workers=self.workers)
        at_least(0, max_bad=self.max_bad, expected_classes=self.expected_classes, eval_crop_px=self.eval_crop_px)
        if self.batch_size % self.views:
            raise FeedrateError(f"batch_size is {self.batch_size}: it must be a multiple of the {self.views} views")
        if len(self.size_ramp) not in (0, 4) or (self.size_ramp and self.size_schedule):
            raise FeedrateError(
                f"size_ramp is {self.size_ramp}: it must be smallest and largest side, first and last epoch, and stand"
                " without a size_schedule"
            )
        between(0, self.eval_size_px - 1, eval_shift_px=self.eval_shift_px)
        refuse_bad_numbers(self.normalize)
        self.train_view()
        self.eval_view()

    def train_view(self) -> View:
        """How training images are cut, as the plan wants it."""
        crops: dict[str, Crop] = {
            "random-resized": RandomResizedCrop(self.crop_scale, self.crop_ratio),
            "pad": PadCrop(self.padding_px),
            "center": CenterCrop(self.size_px, self.size_px),
        }
        schedule = size_ramp(*self.size_ramp) if self.size_ramp else self.size_schedule
        view = View(crops[self.crop], schedule or self.size_px, self.flip_probability)
        return replace(view, flip_alternates=self.flip_alternates)

    def eval_view(self) -> View:
        """How evaluation images are cut, as the plan wants it."""
        return View(CenterCrop(self.eval_crop_px or self.eval_size_px, self.eval_resize_px), self.eval_size_px)

    def evaluation(self) -> dict[str, Any]:
        """The settings that decide what an evaluation's figures are of, as JSON data.

        Figures of others cannot be compared with them, as the best epoch is by, and they may lower the learning rate.
        """
        return {
            "split": self.eval_split,
            "subset": self.eval_subset,
            "subset_seed": self.subset_seed if self.eval_subset != 1.0 else 0,
            "size_px": self.eval_size_px,
            "resize_px": self.eval_resize_px,
            "crop_px": self.eval_crop_px or self.eval_size_px,
            "flip": self.eval_flip,
            "shift_px": self.eval_shift_px,
        }


@dataclass(frozen=True)
class ExecutionConfig:
    """Where and in what precision it runs."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 are mixed precision; fp16 scales the loss."""
    channels_last: bool = True
    """Layout of images and weights; it changes bits."""
    threads: int = 0
    """Threads of torch a rank; 0: the processors divided by the ranks of the machine. It changes bits."""
    deterministic: bool = False
    """On CUDA: only kernels that give the same bits each time. Without it cuDNN tries its algorithms at the first batch
    of each shape and keeps the fastest, which may be another the next time. On a CPU the bits are always the same."""
    compile: bool = False
    """Train by torch.compile's code, made before the first batch of each size; evaluation runs as it is."""
    cuda_graphs: bool = False
    """Play what torch.compile made as CUDA graphs, a launch for many kernels: faster where the GPU waits for launches,
    as with small models. It takes more memory, one rank, and no accumulation."""
    checkpoint_activations: bool = False
    """Keep only what goes into each block, and compute the rest again in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        at_least(0, threads=self.threads)
        if self.compile and self.checkpoint_activations:
            raise FeedrateError(
                "compile and checkpoint_activations are both on: torch.compile plans the memory itself, use one of them"
            )
        if self.cuda_graphs and not self.compile:
            raise FeedrateError(
                "cuda_graphs is on and compile is not: graphs are of torch.compile's code, turn on both"
            )


@dataclass(frozen=True)
class RunConfig:
    """Logs, checkpoints and going on after an interruption."""

    folder: str = "runs"
    """Runs are written to FOLDER/NAME."""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on from the newest valid checkpoint of the same configuration; never: refuse a folder that holds one."""
    allow_change: tuple[str, ...] = ()
    """Differences from the checkpoint to accept, by the name the refusal gives, such as pixels.loader.
    Another order, seed or crop is never accepted."""
    checkpoint_every_epochs: int = 1
    """After so many epochs each, after the last, and after each that is the best so far; 0: after those two alone."""
    checkpoint_every_steps: int = 0
    """0: by time and epochs alone."""
    checkpoint_every_s: float = 600.0
    checkpoints_kept: int = 3
    """The newest, and besides the best that these know."""
    best_metric: BestMetric = "eval_top1"
    """Which epoch's checkpoint and weights are kept as the best; the losses are best when small. none: no best.
    eval_ema_ and eval_swa_ are of averages, where these are kept."""
    hang_timeout_s: float = 1800.0
    """A run in which no rank moves for so long ends, and shows what each was at; 0: never. Compiling counts too."""
    log_every_steps: int = 20
    tensorboard: bool = False
    """Also write tensorboard/: every figure of metrics.jsonl."""
    tensorboard_images: int = 0
    """Evaluation images an epoch, with what the model takes them for and what they are. Turns tensorboard on."""
    tensorboard_histograms: bool = False
    """The distribution of every parameter after each epoch. Turns tensorboard on."""
    log_ids: bool = False
    """Write every sample id, in the order trained on, to ids-rank<r>.i64 (little-endian int64)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", expand_home(self.folder))
        at_least(1, log_every_steps=self.log_every_steps, checkpoints_kept=self.checkpoints_kept)
        at_least(0, checkpoint_every_steps=self.checkpoint_every_steps, hang_timeout_s=self.hang_timeout_s)
        at_least(0, checkpoint_every_epochs=self.checkpoint_every_epochs, tensorboard_images=self.tensorboard_images)
        if not self.checkpoint_every_s > 0:
            raise FeedrateError(f"checkpoint_every_s is {self.checkpoint_every_s}: it must be above 0 seconds")


@dataclass(frozen=True)
class Config:
    """A whole run."""

    name: str = ""
    """Of the run's folder; empty: the preset's, or "default"."""
    loader: str = "auto"
    """torchvision, turbo, ffcv, dali, resident, synthetic, or auto to have one chosen."""
    epochs: int = 16
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs)
        between(0, 2**63 - 1, seed=self.seed)
        if self.average.swa_start_epoch >= self.epochs:
            raise FeedrateError(
                f"swa_start_epoch is {self.average.swa_start_epoch} and the last of {self.epochs} epochs is"
                f" {self.epochs - 1}: nothing would be averaged"
            )
        if self.execution.cuda_graphs and self.optim.accumulate > 1:
            raise FeedrateError(
                f"cuda_graphs is on and accumulate is {self.optim.accumulate}: torch's graphs would overwrite gradients"
                " that wait for the rest of their window, use one of them"
            )
        view, shift_px = self.data.train_view(), self.augment.shift_px
        if shift_px and shift_px >= (smallest := min(map(view.size_at, range(self.epochs)))):
            raise FeedrateError(
                f"shift_px is {shift_px} and images of {smallest} px are trained on: it must be smaller"
            )
        refuse_metric_of_no_average(self.run.best_metric, self.average.names())
        if "/" in self.name or self.name in (".", "..") or len(self.name.encode()) > _LONGEST_NAME:
            raise FeedrateError(
                f"name '{self.name}' must be a folder's name without a slash, no dots alone,"
                f" of {_LONGEST_NAME} bytes or fewer"
            )

    def numerics(self) -> dict[str, Any]:
        """The settings that decide which weights come out, flat, as JSON data: a checkpoint of others is refused.

        Data and order are told by the loader's identity, so that a data set may move and be packed anew.
        """
        return {
            "epochs": self.epochs,
            "model": self.model.name,
            **{f"model.{name}": value for name, value in asdict(self.model).items() if name != "name"},
            "precision": self.execution.precision,
            **{f"optim.{name}": _listed(value) for name, value in asdict(self.optim).items()},
            **{f"augment.{name}": _listed(value) for name, value in asdict(self.augment).items()},
            **{f"average.{name}": value for name, value in asdict(self.average).items()},
        }

    def numerics_sha256(self) -> str:
        """The mark of these settings in a file of weights."""
        return sha256(json.dumps(self.numerics(), sort_keys=True).encode()).hexdigest()


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
