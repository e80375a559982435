"""The loaders that are compared, ours and others', by name."""

from dataclasses import dataclass

_PEERS = "uv pip install --python .venv/bin/python -e '.[peers]'"
_FFCV = "make setup (it builds FFCV, which needs a compiler)"
_DALI = "uv pip install --python .venv/bin/python nvidia-dali-cuda120"


@dataclass(frozen=True)
class LoadSide:
    """One loader, set up in one way.

    title    for tables
    output   "uint8" (0-255), "float32" (normalised), or "rectangles" (uint8, not yet resized)
    reads    how its images are stored: "beton", "folder", "shards", or "restarts": .beton with restart markers
    stream   "module.function" below this package: makes an endless stream of batches from a Job
    options  of ours: loader, resize mode or "", and order of training
    is_ours  whether it is a loader of this project
    remedy   the command that installs what it needs
    view     `Job.view` where it makes no other, else ""
    """

    title: str
    output: str
    reads: str
    stream: str
    options: tuple[str, str, str] = ("", "", "")
    is_ours: bool = False
    remedy: str = ""
    view: str = ""


def _ours(title: str, loader: str, resize: str = "", reads: str = "beton", remedy: str = "") -> LoadSide:
    return LoadSide(title, "uint8", reads, "ours.pixels", (loader, resize, "shuffled"), True, remedy)


SIDES = {
    "turbo": _ours("OpenCV's INTER_AREA", "turbo", "area"),
    "turbo-libjpeg": LoadSide(
        "turbo, seek points left aside, Huffman codes decoded by libjpeg-turbo",
        "uint8",
        "beton",
        "ours.pixels_by_libjpeg",
        ("turbo", "area", "shuffled"),
        True,
    ),
    "turbo-from-start": LoadSide(
        "turbo, seek points left aside: the codes of all before a crop are decoded",
        "uint8",
        "beton",
        "ours.pixels_from_start",
        ("turbo", "area", "shuffled"),
        True,
    ),
    "turbo-restarts": _ours("the same pixels from files with restart markers", "turbo", "area", "restarts"),
    "turbo-exact": _ours("antialiased bilinear, torchvision's to the bit", "turbo", "exact"),
    "turbo-bicubic": _ours("antialiased bicubic, torchvision's to the bit", "turbo", "bicubic"),
    "turbo-device": _ours("cut by copying, resized where the batch is used", "turbo", "device"),
    "turbo-folder": _ours("turbo from the untouched files", "turbo", "area", "folder"),
    "ffcv": _ours("FFCV's threads, made to execute our plan", "ffcv", remedy=_FFCV),
    "dali": _ours("DALI's CPU pipeline, made to execute our plan", "dali", remedy=_DALI),
    "dali-restarts": _ours("dali, from files with restart markers", "dali", reads="restarts", remedy=_DALI),
    "resident": _ours("pixels kept in memory", "resident"),
    "torchvision": _ours("our torchvision loader", "torchvision", "exact"),
    "torchvision-bicubic": _ours("the same, bicubic", "torchvision", "bicubic"),
    "turbo-float32": LoadSide(
        "turbo with INTER_AREA, then float32 channels-last by the engine's own normalisation",
        "float32",
        "beton",
        "ours.normalised",
        ("turbo", "area", "shuffled"),
        True,
    ),
    "turbo-blocks": LoadSide(
        "turbo, order by blocks of 2 MiB, 16 mixed in each of 8 lanes",
        "uint8",
        "beton",
        "ours.pixels",
        ("turbo", "area", "block"),
        True,
    ),
    "turbo-copy": LoadSide(
        "turbo, resize on the device: up to the copy of the rectangles",
        "rectangles",
        "beton",
        "ours.copied",
        ("turbo", "device", "shuffled"),
        True,
    ),
    "ffcv-stock": LoadSide("FFCV Loader", "uint8", "beton", "peer_ffcv.pixels", remedy=_FFCV),
    "ffcv-stock-float32": LoadSide(
        "FFCV Loader with NormalizeImage", "float32", "beton", "peer_ffcv.normalised", remedy=_FFCV
    ),
    "ffcv-stock-quasi": LoadSide(
        "FFCV Loader for data larger than memory: QUASI_RANDOM, os_cache=False",
        "uint8",
        "beton",
        "peer_ffcv.quasi_random",
        remedy=_FFCV,
    ),
    "dali-stock": LoadSide("DALI file pipeline, CPU, uint8 out", "uint8", "folder", "peer_dali.pixels", remedy=_DALI),
    "dali-stock-float32": LoadSide(
        "DALI file pipeline, CPU, as documented", "float32", "folder", "peer_dali.normalised", remedy=_DALI
    ),
    "dataloader": LoadSide("torchvision ImageFolder + DataLoader, uint8 out", "uint8", "folder", "peer_pillow.pixels"),
    "dataloader-float32": LoadSide(
        "torchvision ImageFolder + DataLoader, as documented", "float32", "folder", "peer_pillow.normalised"
    ),
    "timm": LoadSide("timm.data.create_loader", "float32", "folder", "peer_timm.normalised", remedy=_PEERS),
    "webdataset": LoadSide("webdataset WebLoader", "float32", "shards", "peer_webdataset.normalised", remedy=_PEERS),
    "spdl": LoadSide(
        "spdl Pipeline", "uint8", "folder", "peer_spdl.pixels", remedy=f"{_PEERS} and FFmpeg's libraries, 4 to 9"
    ),
    "cifar-dataloader": LoadSide(
        "torchvision, arrays in memory + DataLoader", "uint8", "beton", "peer_cifar.pixels", view="cifar"
    ),
}
