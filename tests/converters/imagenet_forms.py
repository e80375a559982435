"""The same few real JPEGs in every form in which people have ImageNet, and a small CIFAR-10."""

import csv
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import webdataset
from pictures import SIZES, smooth_picture
from PIL import Image
from scipy.io import savemat

from converters.progress import silent_phase
from converters.samples import Samples
from converters.sources.opening import SourceOptions, open_source
from converters.split_pass import Rules
from loaders.errors import FeedrateError

NAMES = {"n01440764": "tench, Tinca tinca", "n02119789": "kit fox, Vulpes macrotis", "n01443537": "goldfish"}
WNIDS = tuple(sorted(NAMES))
VAL_WNIDS = [WNIDS[2], WNIDS[0], WNIDS[1], WNIDS[0], WNIDS[2], WNIDS[1], WNIDS[1]]  # of image 1, 2, …


@dataclass(frozen=True)
class Pictures:
    """The bytes of the training images by class and file name, and of the validation images in their order."""

    train: dict[str, dict[str, bytes]]
    val: list[bytes]

    def expected_train(self) -> list[tuple[str, int, bytes]]:
        """(name, label, bytes) in torchvision's order."""
        return [
            (f"{wnid}/{name}", WNIDS.index(wnid), self.train[wnid][name])
            for wnid in WNIDS
            for name in sorted(self.train[wnid])
        ]

    def expected_val(self) -> list[tuple[str, int, bytes]]:
        """(name, label, bytes) by file name."""
        return [
            (val_name(number), WNIDS.index(wnid), data)
            for number, (wnid, data) in enumerate(zip(VAL_WNIDS, self.val, strict=True), 1)
        ]


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(smooth_picture(*SIZES[seed % len(SIZES)], seed)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def make_pictures() -> Pictures:
    """13 training images, 7 validation images; names out of order on purpose."""
    train = {
        wnid: {f"{wnid}_{number}.JPEG": jpeg(100 * label + number) for number in (12, 3, 101, 20)[: 4 - label % 2]}
        for label, wnid in enumerate(NAMES)
    }
    return Pictures(train, [jpeg(1000 + n) for n in range(len(VAL_WNIDS))])


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def write_class_folders(root: Path, pictures: Pictures) -> Path:
    for wnid, files in pictures.train.items():
        (root / "train" / wnid).mkdir(parents=True)
        for name, data in files.items():
            (root / "train" / wnid / name).write_bytes(data)
    for number, (wnid, data) in enumerate(zip(VAL_WNIDS, pictures.val, strict=True), 1):
        (root / "val" / wnid).mkdir(parents=True, exist_ok=True)
        (root / "val" / wnid / val_name(number)).write_bytes(data)
    return root


def write_kaggle(root: Path, pictures: Pictures) -> Path:
    images = root / "ILSVRC" / "Data" / "CLS-LOC"
    write_class_folders(images, pictures)
    for number, wnid in enumerate(VAL_WNIDS, 1):
        (images / "val" / wnid / val_name(number)).rename(images / "val" / val_name(number))
    for wnid in WNIDS:
        (images / "val" / wnid).rmdir()
    (images / "test").mkdir()
    (images / "test" / "ILSVRC2012_test_00000001.JPEG").write_bytes(pictures.val[0])
    lines = [(val_name(number).removesuffix(".JPEG"), wnid) for number, wnid in enumerate(VAL_WNIDS, 1)]
    write_labels(root, lines[::-1])
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} {NAMES[wnid]}\n" for wnid in WNIDS))
    return root


def write_labels(root: Path, lines: list[tuple[str, str]]) -> None:
    with open(root / "LOC_val_solution.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ImageId", "PredictionString"])
        table.writerows([image, f"{wnid} 85 1 499 272 {wnid} 1 2 3 4 " if wnid else ""] for image, wnid in lines)


def add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def tar_of(files: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in files.items():
            add_member(archive, name, data)
    return buffer.getvalue()


def write_official(root: Path, pictures: Pictures) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    inner = {f"{wnid}.tar": tar_of(files) for wnid, files in pictures.train.items()}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    val = {val_name(number): data for number, data in enumerate(pictures.val, 1)}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(dict(reversed(val.items()))))
    write_devkit(root)
    return root


def write_devkit(root: Path, truth: list[int] | None = None) -> None:
    """Synsets in the order of NAMES, which is not sorted, and one that has children and is no class."""
    kind = [
        ("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O"),
        ("children", "O"), ("wordnet_height", "O"), ("num_train_images", "O"),
    ]  # fmt: skip
    rows = [(number, wnid, NAMES[wnid], "a fish", 0, [], 0, 10) for number, wnid in enumerate(NAMES, 1)]
    rows.insert(1, (4, "n00001740", "entity", "all", 2, [1, 2], 3, 0))
    synsets = np.array([tuple(np.array(x) if isinstance(x, list) else x for x in row) for row in rows], dtype=kind)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets.reshape(-1, 1)})
    number_of = {wnid: number for number, wnid in enumerate(NAMES, 1)}
    truth = truth if truth is not None else [number_of[wnid] for wnid in VAL_WNIDS]
    files = {
        "ILSVRC2012_devkit_t12/readme.txt": b"read me",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in truth).encode(),
    }
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        for name, data in files.items():
            add_member(archive, name, data)


def write_shards(root: Path, pictures: Pictures, samples_a_shard: int = 5) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, samples in (("train", pictures.expected_train()), ("val", pictures.expected_val())):
        for start in range(0, len(samples), samples_a_shard):
            with webdataset.TarWriter(str(root / f"im-{split}-{start:06d}.tar")) as shard:
                for name, label, data in samples[start : start + samples_a_shard]:
                    shard.write({"__key__": name.removesuffix(".JPEG"), "jpg": data, "cls": label})
    (root / "classes.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    return root


def write_cifar(root: Path) -> Path:
    """CIFAR-10 in its binary form: 15 training and 4 test images of 3 classes."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("airplane\nbird\ncat\n\n")
    for file, count in enumerate([3, 3, 3, 3, 3, 4]):
        name = f"data_batch_{file + 1}.bin" if file < 5 else "test_batch.bin"
        planes = [smooth_picture(32, 32, 10 * file + n).transpose(2, 0, 1).tobytes() for n in range(count)]
        (folder / name).write_bytes(b"".join(bytes([n % 3]) + data for n, data in enumerate(planes)))
    return root


FORMS = {
    "class folders": write_class_folders,
    "Kaggle": write_kaggle,
    "official archives": write_official,
    "shards": write_shards,
}


LENIENT = Rules(skip_bad=True, most_bad=99)


def open_as(path: Path, dataset: str = "imagenet", **options) -> dict[str, Samples]:
    return open_source(dataset, path, SourceOptions(**options), silent_phase)


def contents(samples: Samples) -> list[tuple[str, int, bytes]]:
    """(name, label, bytes) of all samples."""
    found = []
    for index, label in enumerate(samples.labels.tolist()):
        stored = samples.stored(index)
        data = stored.read().tobytes()
        assert len(data) == samples.num_bytes[index]
        found.append((stored.name, label, data))
    return found


def refused_source(path: Path, dataset: str = "imagenet", **options) -> str:
    """The one sentence with which a source is refused."""
    with pytest.raises(FeedrateError) as caught:
        open_as(path, dataset, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
