"""The converter on real ImageNet files: killed at random moments, and what re-encoding costs in quality."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from commands import REPOSITORY, environment, nothing_left

from converters.encode import Wanted, encode
from converters.presets import PRESETS
from loaders.records import open_records

NUM_KILLS = 50
REPEATED = 6  # so that packing takes longer than some checkpoints
CONVERT = [sys.executable, str(REPOSITORY / "tools" / "convert.py"), "folder"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def repeated(images: Path, tmp_path: Path) -> Path:
    """The images REPEATED times, as links."""
    for path in sorted(images.rglob("*.JPEG")):
        folder = tmp_path / "images" / "train" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(REPEATED):
            (folder / f"{number}-{path.name}").symlink_to(path)
    return tmp_path / "images"


@pytest.mark.parametrize(
    "options", [["--to", "beton"], ["--to", "beton,shards,raw", "--preset", "256"]], ids=["full", "256"]
)
def test_killed_at_fifty_random_moments_it_always_ends_with_the_same_bytes(unpacked, tmp_path, measured, options):
    """Each time: begin, SIGKILL, sometimes once more, then to the end. Every other time the workers are killed too."""
    source = ["--source", str(repeated(unpacked("imagenet-sample-500.tar"), tmp_path)), "--shard-mb", "4", *options]
    started = time.monotonic()
    subprocess.run([*CONVERT, *source, "--out", str(tmp_path / "straight")], check=True, env=environment())
    seconds = time.monotonic() - started
    expected = contents(tmp_path / "straight")
    draws = random.Random(0)
    found: dict[str, int] = {}
    num_kills = 0
    while num_kills < NUM_KILLS:
        out = tmp_path / "out"
        for _ in range(draws.choice((1, 1, 2, 3))):
            began = subprocess.Popen([*CONVERT, *source, "--out", str(out)], env=environment(), start_new_session=True)
            with nothing_left(began) as process:
                time.sleep(draws.uniform(0.2, 1.05) * seconds)
                if process.poll() is None:
                    if draws.random() < 0.5:
                        process.kill()
                    else:
                        os.killpg(process.pid, signal.SIGKILL)
                    num_kills += 1
                process.wait()
            journal = out / "packing.partial" / "train.journal"
            state = "begun" if (out / "packing.partial").exists() else "not begun"
            state = "with checkpoints" if journal.exists() and journal.stat().st_size else state
            state = "complete" if (out / "manifest.json").exists() else state
            found[state] = found.get(state, 0) + 1
        subprocess.run([*CONVERT, *source, "--out", str(out)], check=True, env=environment())
        assert contents(out) == expected, num_kills
        shutil.rmtree(out)
    measured |= {"kills": num_kills, "states_found": found, "seconds_undisturbed": round(seconds, 1)}


@pytest.mark.parametrize("preset", PRESETS)
def test_quality_of_each_preset_against_its_source(unpacked, measured, preset):
    """Kept files: the same pixels. Encoded ones: PSNR against the source's pixels, shrunk without loss."""
    encoding = PRESETS[preset].encoding
    psnr, num_kept, num_bytes = [], 0, 0
    for path in sorted(unpacked("imagenet-sample-500.tar").rglob("*.JPEG")):
        stored = np.fromfile(path, np.uint8)
        encoded = encode(stored, None, encoding, Wanted(jpeg=True, pixels=False))
        assert encoded.jpeg is not None
        num_bytes += len(encoded.jpeg)
        pixels = simplejpeg.decode_jpeg(encoded.jpeg, "RGB")
        source = simplejpeg.decode_jpeg(stored, "RGB", strict=False)
        if encoded.is_original:
            assert np.array_equal(pixels, source)
            num_kept += 1
        else:
            source = cv2.resize(source, (encoded.width, encoded.height), interpolation=cv2.INTER_AREA)
            error = np.mean((pixels.astype(np.float64) - source) ** 2)
            psnr.append(10 * np.log10(255**2 / error))
    measured |= {"kept": num_kept, "encoded": len(psnr), "bytes_a_sample": round(num_bytes / (num_kept + len(psnr)))}
    if psnr:
        low, median = np.percentile(psnr, [5, 50])
        measured |= {"psnr_db_5_percent": round(float(low), 1), "psnr_db_median": round(float(median), 1)}
        assert median > 30
    assert num_kept + len(psnr) == 500


def test_what_is_kept_is_the_very_file(unpacked, tmp_path):
    source = unpacked("imagenet-sample-500.tar")
    command = [*CONVERT, "--source", str(source), "--out", str(tmp_path / "o"), "--order", "source"]
    subprocess.run(command, check=True, env=environment())
    records = open_records(tmp_path / "o", "train")
    for index, path in enumerate(sorted(source.rglob("*.JPEG"))):
        assert bytes(records.read(index)) == path.read_bytes()
