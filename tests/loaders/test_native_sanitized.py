"""The native kernel reads damaged JPEGs under the compiler's sanitizers: no byte too far, nothing undefined."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import TIMEOUT_S
from pictures import smooth_picture
from test_native_kernel import FORMS

from loaders.native import library
from loaders.native.restart_markers import add_restart_markers

SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
NUM_DAMAGES = 150


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    if library.load() is None:
        pytest.skip(library.why_not())
    path = tmp_path_factory.mktemp("sanitized") / "damaged_jpegs"
    sources = [Path(__file__).parent / "damaged_jpegs.c", *sorted(Path(library.__file__).parent.glob("*.c"))]
    command = [*library._compiler(), "-O1", "-std=gnu11", *SANITIZERS, "-I", str(Path(library.__file__).parent)]
    done = subprocess.run(
        [*command, "-o", str(path), *map(str, sources), *library._LIBRARIES],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode and "san" in done.stderr.lower():
        pytest.skip("this compiler has no sanitizers")
    assert done.returncode == 0, done.stderr
    return path


def test_damaged_files_are_decoded_as_libjpeg_does_or_left_alone(program, tmp_path):
    rng, files = np.random.default_rng(5), []
    for form, encoded in FORMS.items():
        for noise in (2, 255):
            pixels = np.clip(smooth_picture(83, 61, 4) + rng.integers(-noise, noise + 1, (61, 83, 3)), 0, 255)
            stored = encoded(pixels.astype(np.uint8))
            for data in (stored, add_restart_markers(stored)):
                if data is not None:
                    files.append(tmp_path / f"{len(files)} {form.replace('/', ' ')}.jpg")
                    files[-1].write_bytes(bytes(data))
    done = subprocess.run(
        [str(program), str(NUM_DAMAGES), *map(str, files)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},  # needs to trace, which containers may forbid
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    num_both, num_neither, num_left, num_taken_over, num_sought, num_given_up = map(int, done.stdout.split())
    assert num_both + num_neither + num_left == NUM_DAMAGES * len(files)
    assert (
        min(num_both, num_neither, num_left, num_sought, num_given_up) > 100 and num_taken_over > num_both
    )  # all of them were tried
