"""The native kernel under the compiler's sanitizers, on damaged JPEGs and on raw samples: no byte too far, nothing
undefined."""

import os
import subprocess
from collections.abc import Callable
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
NUM_TABLES = 3000
KERNEL = Path(library.__file__).parent


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Callable[[str], Path]:
    """The program of a C file beside this one, with the kernel in it, which is compiled once."""
    if library.load() is None:
        pytest.skip(library.why_not())
    folder = tmp_path_factory.mktemp("sanitized")

    def compile_with(*words: Path | str) -> None:
        done = subprocess.run(
            [*library._compiler(), "-O1", "-std=gnu11", *SANITIZERS, "-I", str(KERNEL), *map(str, words)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            cwd=folder,
        )
        if done.returncode and "san" in done.stderr.lower():
            pytest.skip("this compiler has no sanitizers")
        assert done.returncode == 0, done.stderr

    def program(name: str) -> Path:
        path = folder / name
        compile_with("-o", path, Path(__file__).parent / f"{name}.c", *folder.glob("*.o"), *library._LIBRARIES)
        return path

    compile_with("-c", *sorted(KERNEL.glob("*.c")))
    return program


def counts_of(*command: Path | int) -> list[int]:
    """What a program prints once it has found nothing wrong."""
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},  # needs to trace, which containers may forbid
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return list(map(int, done.stdout.split()))


def test_rectangles_of_raw_samples_are_copied_and_resized_within_their_memory(compiled):
    num_copied, num_left, num_resized = counts_of(compiled("raw_rectangles"), NUM_TABLES)
    assert min(num_copied, num_left, num_resized) > NUM_TABLES / 2  # all of them were tried


def test_damaged_files_are_decoded_as_libjpeg_does_or_left_alone(compiled, tmp_path):
    rng, files = np.random.default_rng(5), []
    for form, encoded in FORMS.items():
        for noise in (2, 255):
            pixels = np.clip(smooth_picture(83, 61, 4) + rng.integers(-noise, noise + 1, (61, 83, 3)), 0, 255)
            stored = encoded(pixels.astype(np.uint8))
            for data in (stored, add_restart_markers(stored)):
                if data is not None:
                    files.append(tmp_path / f"{len(files)} {form.replace('/', ' ')}.jpg")
                    files[-1].write_bytes(bytes(data))
    counts = counts_of(compiled("damaged_jpegs"), NUM_DAMAGES, *files)
    num_both, num_neither, num_left, num_taken_over, num_sought, num_given_up = counts
    assert num_both + num_neither + num_left == NUM_DAMAGES * len(files)
    assert (
        min(num_both, num_neither, num_left, num_sought, num_given_up) > 100 and num_taken_over > num_both
    )  # all of them were tried
