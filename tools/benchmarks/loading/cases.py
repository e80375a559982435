"""What is loaded: how the images are stored, what is cut from them, and who takes part."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

_PHOTO_REFERENCES = {"uint8": ("turbo", "ffcv-stock"), "float32": ("turbo-float32", "ffcv-stock-float32")}


@dataclass(frozen=True)
class Case:
    """One comparison.

    title       for tables
    sides       who takes part unless the user says
    convert     options of tools/convert.py
    formats     what it writes
    restarts    whether it is stored once more, by --restart-markers, as .beton
    folder      where peers read files: "links" to the untouched images, files "extracted" from the packed set, or ""
    source      "photos" or "cifar": what is packed, and what is cut
    size_px     side of the square output
    batch_size  0: what the user says
    times       how many times as often as the user says each image is repeated
    is_cold     whether the packed file is evicted from the page cache before each run
    references  by output: ours and a peer, to which all others of the same output are compared
    """

    title: str
    sides: tuple[str, ...]
    convert: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("beton",)
    restarts: bool = False
    folder: str = ""
    source: str = "photos"
    size_px: int = 224
    batch_size: int = 0
    times: int = 1
    is_cold: bool = False
    references: Mapping[str, tuple[str, str]] = field(default_factory=lambda: _PHOTO_REFERENCES)

    @property
    def offers(self) -> set[str]:
        """How its images are stored, in the words of `LoadSide.reads`."""
        return {*self.formats, *(["folder"] if self.folder else []), *(["restarts"] if self.restarts else [])}


_TURBOS = (
    "turbo",
    "turbo-from-start",
    "turbo-libjpeg",
    "turbo-restarts",
    "turbo-exact",
    "turbo-bicubic",
    "turbo-float32",
)
_OURS_ON_PHOTOS = (*_TURBOS, "ffcv", "dali", "dali-restarts", "torchvision", "torchvision-bicubic")
_PEERS_ON_FILES = ("dali-stock", "dali-stock-float32", "dataloader", "dataloader-float32", "timm", "webdataset", "spdl")
_FFCV = ("ffcv-stock", "ffcv-stock-float32")

CASES = {
    "full": Case(
        "Full-size JPEGs, their bytes untouched",
        (*_OURS_ON_PHOTOS, *_FFCV, *_PEERS_ON_FILES),
        ("--check", "structure", "--seek-points"),
        ("beton", "shards"),
        restarts=True,
        folder="links",
    ),
    "256": Case(
        "JPEG quality 90, shorter side 256 px (--preset 256)",
        (
            "turbo",
            "turbo-from-start",
            "turbo-libjpeg",
            "turbo-restarts",
            "ffcv",
            "dali",
            "ffcv-stock",
            "dali-stock",
            "dataloader",
        ),
        ("--preset", "256"),
        ("beton", "shards"),
        restarts=True,
        folder="extracted",
    ),
    "raw256": Case(
        "Raw pixels, shorter side 256 px (--preset 256 --write-mode raw)",
        ("turbo", "ffcv", "resident", "turbo-float32", *_FFCV),
        ("--preset", "256", "--write-mode", "raw"),
    ),
    "cifar": Case(
        "CIFAR-10: 4 px of padding, crop, flip",
        ("resident", "turbo", "ffcv", "ffcv-stock", "cifar-dataloader"),
        source="cifar",
        size_px=32,
        batch_size=512,
        references={"uint8": ("resident", "ffcv-stock")},
    ),
}
CASES |= {
    "copy": replace(
        CASES["raw256"],
        title="Raw pixels, shorter side 256 px: only copied, and resized where the batch is used",
        sides=("turbo-copy", "turbo-device", "turbo"),
    ),
    "cold": replace(
        CASES["raw256"],
        title="Raw pixels from a cold disk: fully random order and order by blocks",
        sides=("turbo", "turbo-blocks", "ffcv-stock", "ffcv-stock-quasi"),
        times=2,
        is_cold=True,
        references={"uint8": ("turbo-blocks", "ffcv-stock")},
    ),
}
DEFAULT_CASES = ("full", "256", "raw256")
