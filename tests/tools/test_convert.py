"""tools/convert.py as a user runs it: real processes, exit statuses, sentences."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pictures import smooth_picture, write_image_folder
from PIL import Image

from loaders.manifest import read_manifest
from loaders.records import open_records

REPOSITORY = Path(__file__).resolve().parents[2]
CONVERT = str(REPOSITORY / "tools" / "convert.py")


def environment():
    return {**os.environ, "COLUMNS": "200"}


def python(*arguments, cwd=REPOSITORY):
    """Run `python ARGUMENTS` to its end."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120)


def refused(*arguments, cwd=REPOSITORY):
    """The one line with which the command refuses, without its mark."""
    done = python(CONVERT, *map(str, arguments), cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("error: ")


def wait_until_gone(group):
    """Fail if a process of the group outlives the command by more than ten seconds."""
    deadline = time.monotonic() + 10
    while True:
        table = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
        members = [line for line in table.splitlines() if line.split()[0] == str(group) and line.split()[1][0] != "Z"]
        if not members:
            return
        assert time.monotonic() < deadline, members
        time.sleep(0.05)


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory):
    """Big enough to be interrupted: one large picture, many times."""
    root = tmp_path_factory.mktemp("large")
    first = root / "train" / "a" / "0000.jpg"
    first.parent.mkdir(parents=True)
    Image.fromarray(smooth_picture(1600, 1200, 0)).save(first, quality=95)
    for number in range(1, 1000):
        os.link(first, first.with_name(f"{number:04d}.jpg"))
    return root


def test_a_folder_is_packed_from_anywhere_and_the_summary_tells_how_to_go_on(image_folder, tmp_path):
    done = python(CONVERT, "folder", "--source", str(image_folder), "--out", "packed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("37 samples", "23 samples", "3 classes", "mean", "img/s", "engine/train.py --data.path packed"):
        assert words in done.stdout
    assert len(open_records(tmp_path / "packed", "val")) == 23
    assert "already holds" in refused("folder", "--source", image_folder, "--out", "packed", cwd=tmp_path)


def test_the_default_is_to_pack_beside_the_source_and_one_split_is_enough(tmp_path):
    write_image_folder(tmp_path / "pets", {"train": {"ant": 3, "bee": 2}})
    done = python(CONVERT, "imagenet", "--source", str(tmp_path / "pets"), "--write-mode", "raw", "--max-side", "40")
    assert done.returncode == 0, done.stderr
    assert "only a 'train' split" in done.stdout
    records = open_records(tmp_path / "pets-packed", "train")
    assert records.is_raw.all() and max(records.widths.max(), records.heights.max()) == 40


def test_cifar_as_a_tree_of_images_becomes_raw_pixels_with_test_as_val(tmp_path):
    root = write_image_folder(tmp_path / "cifar", {"train": {"cat": 4, "dog": 4}, "test": {"cat": 2, "dog": 2}})
    done = python(CONVERT, "cifar10", "--source", str(root))
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "cifar-packed")
    assert manifest.settings["write_mode"] == "raw" and sorted(manifest.splits) == ["train", "val"]


def test_generated_photos_are_packed_and_kept_for_the_next_time(tmp_path):
    command = [
        CONVERT,
        "synthetic",
        "--out",
        str(tmp_path / "s"),
        "--num-train",
        "8",
        "--num-val",
        "4",
        "--classes",
        "4",
    ]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    assert "12 photos generated, 0 were there" in done.stdout
    assert "0 photos generated, 12 were there" in python(*command, "--overwrite").stdout
    assert len(open_records(tmp_path / "s", "train")) == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["imagnet"], "did you mean imagenet?"),
        (["imagenet", "--sorce", "x"], "did you mean --source?"),
        (["cifar10", "--write-mode", "jpeg"], "did you mean jpg?"),
        (["imagenet", "--source", "nowhere"], "nowhere does not exist"),
        (["folder"], "--source"),
        ([], "required"),
    ],
)
def test_what_cannot_be_is_one_sentence_with_the_nearest_that_can(arguments, words, tmp_path):
    assert words in refused(*arguments, cwd=tmp_path)


def test_a_broken_image_is_named(tmp_path):
    root = write_image_folder(tmp_path / "in", {"train": {"ant": 4}})
    broken = root / "train" / "ant" / "002.jpg"
    broken.write_bytes(broken.read_bytes()[:-60])
    assert str(broken) in refused("folder", "--source", root)
    assert not list((tmp_path / "in-packed").iterdir())


def test_packing_into_the_source_is_refused(image_folder):
    assert "lies inside" in refused("folder", "--source", image_folder, "--out", image_folder / "packed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_one_line_and_leaves_nothing(large_folder, tmp_path, number):
    out = tmp_path / "out"
    command = [sys.executable, CONVERT, "folder", "--source", str(large_folder), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (out / "train.beton.partial").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(process.pid, number)  # the whole group, as a terminal does
    _, complaint = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert complaint.startswith("interrupted") and complaint.count("\n") == 1, complaint
    assert list(out.iterdir()) == []
    wait_until_gone(process.pid)


def test_when_it_is_killed_nothing_takes_a_final_name_and_no_process_stays(large_folder, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, CONVERT, "folder", "--source", str(large_folder), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True)
    while not (out / "train.beton.partial").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert [path.name for path in out.iterdir()] == ["train.beton.partial"]
    wait_until_gone(process.pid)


def test_it_starts_without_torch():
    done = python("-c", "import sys; sys.path.insert(0, 'tools'); import convert; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr
