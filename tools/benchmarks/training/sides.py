"""What is compared: three ways to train the same model, and what they are trained on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainSide:
    """One way to train.

    trains   its module here and a function in it, given a Job, a Window and where the batches are from
    title    for tables: what it is, honestly
    package  whose version is told with it
    remedy   how it is installed where it is not; "" where nothing helps
    """

    trains: str
    title: str
    package: str
    remedy: str


@dataclass(frozen=True)
class Case:
    """Images of `size_px`, `batch_size` of them at a time, in this precision."""

    title: str
    size_px: int
    batch_size: int
    precision: str


OURS = "feedrate"

_RENDITION = (
    "rendition of the training loop of {}, which no package of it on PyPI holds: the same operations in the same order,"
    " written anew; {}"
)
SIDES = {
    OURS: TrainSide(
        "ours.train",
        "`engine/train.py`'s own loop; end to end by `turbo`, resizing by area, from packed JPEGs",
        "feedrate",
        "",
    ),
    "torchvision": TrainSide(
        "torchvision_loop.train",
        _RENDITION.format("torchvision's references/classification/train.py", "`ImageFolder`, `DataLoader`, Pillow"),
        "torchvision",
        "uv pip install torchvision",
    ),
    "timm": TrainSide(
        "timm_loop.train",
        _RENDITION.format(
            "timm's train.py", "`create_dataset`, `create_loader` with its prefetcher, `create_optimizer_v2`, its task"
        ),
        "timm",
        "uv pip install timm",
    ),
}

MODEL = "resnet18"
CASES = {
    "64-fp32": Case("64 px, batches of 64, fp32", 64, 64, "fp32"),
    "64-bf16": Case("64 px, batches of 64, bf16", 64, 64, "bf16"),
    "224-fp32": Case("224 px, batches of 32, fp32", 224, 32, "fp32"),
    "224-bf16": Case("224 px, batches of 32, bf16", 224, 32, "bf16"),
}

# where batches come from, and what that measures
FEEDS = {
    "resident": "The step alone, on one batch that stays on the device",
    "images": "End to end, from images",
}
# ours alone: the loader, its batches on the device, and no step
LOADING = "loader"

# of all sides
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, SMOOTHING = 0.01, 0.9, 1e-4, 0.1
