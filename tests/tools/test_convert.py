"""tools/convert.py as a user runs it: real processes, exit statuses, sentences."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import TIMEOUT_S, run
from pictures import smooth_picture, write_image_folder
from PIL import Image

from converters.byte_counts import readable_bytes
from loaders.manifest import read_manifest
from loaders.records import open_records

REPOSITORY = Path(__file__).resolve().parents[2]
CONVERT = str(REPOSITORY / "tools" / "convert.py")


def environment():
    return {**os.environ, "COLUMNS": "200", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}


def python(*arguments, cwd=REPOSITORY):
    """Run `python ARGUMENTS` to its end."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S)


def refused(*arguments, cwd=REPOSITORY):
    """The one line with which the command refuses, without its mark."""
    done = python(CONVERT, *map(str, arguments), cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("error: ")


def wait_until_gone(group):
    """Fail if a process of the group outlives the command by more than a minute."""
    deadline = time.monotonic() + 60
    while True:
        table = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
        members = [line for line in table.splitlines() if line.split()[0] == str(group) and line.split()[1][0] != "Z"]
        if not members:
            return
        assert time.monotonic() < deadline, members
        time.sleep(0.05)


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory):
    """Big enough to be interrupted, also where the test is held up for seconds: one large picture, many times."""
    root = tmp_path_factory.mktemp("large")
    first = root / "train" / "a" / "0000.jpg"
    first.parent.mkdir(parents=True)
    Image.fromarray(smooth_picture(1600, 1200, 0)).save(first, quality=95)
    for number in range(1, 600):
        os.link(first, first.with_name(f"{number:04d}.jpg"))
    return root


def test_a_folder_is_packed_from_anywhere_and_the_summary_tells_how_to_go_on(image_folder, tmp_path):
    command = [CONVERT, "folder", "--source", str(image_folder), "--out", "packed"]
    done = python(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("37 samples", "23 samples", "will take about", "3 classes", "mean", "img/s", "--data.path packed"):
        assert words in done.stdout
    assert len(open_records(tmp_path / "packed", "val")) == 23
    again = python(*command, cwd=tmp_path)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    otherwise = refused(*command[1:], "--max-side", 50, cwd=tmp_path)
    assert "packed already holds a packed set, packed otherwise (limit_px was not set and is 50)" in otherwise
    replaced = python(*command, "--preset", "256", "--to", "raw", "--to", "shards", "--overwrite", cwd=tmp_path)
    assert replaced.returncode == 0 and "preset 256: shortest side" in replaced.stdout
    assert sorted(read_manifest(tmp_path / "packed").splits["val"].formats) == ["raw", "shards"]


def test_the_default_is_to_pack_beside_the_source_and_one_split_is_enough(tmp_path):
    write_image_folder(tmp_path / "pets", {"train": {"ant": 3, "bee": 2}})
    done = python(CONVERT, "imagenet", "--source", str(tmp_path / "pets"), "--write-mode", "raw", "--max-side", "40")
    assert done.returncode == 0, done.stderr
    assert "only a 'train' split: packing that alone (--val-fraction makes a 'val' split" in done.stdout
    assert "train with it:" not in done.stdout and "pack it with --val-fraction 0.1 --overwrite" in done.stdout
    records = open_records(tmp_path / "pets-packed", "train")
    assert records.is_raw.all() and max(records.widths.max(), records.heights.max()) == 40


def test_what_is_said_to_train_with_a_set_that_has_no_split_to_evaluate_on_runs(tmp_path):
    write_image_folder(tmp_path / "pets", {"train": {"ant": 30, "bee": 30}})
    command = [CONVERT, "folder", "--source", str(tmp_path / "pets")]
    (line,) = [line for line in python(*command).stdout.splitlines() if "--data.eval-split" in line]
    lighter = "--model.name cifar_resnet20 --data.size-px 32 --data.eval-size-px 32 --data.batch-size 8 --epochs 1"
    words = [*shlex.split(line[line.index("engine/train.py") :]), *lighter.split(), "--run.folder", str(tmp_path / "r")]
    assert python(*words).returncode == 0
    done = python(*command, "--val-fraction", "0.1", "--overwrite")
    assert done.returncode == 0 and "train with it: python engine/train.py" in done.stdout


def test_a_set_of_a_split_to_evaluate_on_alone_is_told_as_that(tmp_path):
    write_image_folder(tmp_path / "pets", {"val": {"ant": 3, "bee": 2}})
    done = python(CONVERT, "folder", "--source", str(tmp_path / "pets"))
    assert done.returncode == 0, done.stderr
    assert "only a 'val' split: packing that alone\n" in done.stdout and "--val-fraction" not in done.stdout
    assert f"python tools/evaluate.py RUN --data.path {tmp_path / 'pets-packed'} " in done.stdout
    assert "train.py" not in done.stdout


@pytest.mark.parametrize("name", [b"two words", b"no \xff text"])
def test_names_of_files_may_be_anything_and_what_is_to_be_typed_is_quoted(tmp_path, name):
    name = os.fsdecode(name)
    root = write_image_folder(tmp_path / name, {"train": {"ant": 2, name: 2}, "test": {"ant": 2}, name: {}})
    (root / name).mkdir()
    done = python(CONVERT, "folder", "--source", str(root))
    assert done.returncode == 0, done.stderr
    shown = name.encode(errors="backslashreplace").decode()
    assert f"--data.path '{tmp_path}/{shown}-packed'\n" in done.stdout and f"them: {shown}/\n" in done.stdout
    for command in ("verify", "show"):
        done = python(CONVERT, command, f"{root}-packed")
        assert done.returncode == 0 and shown in done.stdout, done.stderr


def test_a_split_is_made_where_it_is_asked_for(tmp_path):
    root = write_image_folder(tmp_path / "pets", {"train": {"ant": 20, "bee": 10}})
    done = python(
        CONVERT, "folder", "--source", str(root / "train"), "--out", str(tmp_path / "o"), "--val-fraction", "0.2"
    )
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "o")
    assert manifest.splits["val"].samples_per_class == [4, 2] and manifest.splits["train"].samples_per_class == [16, 8]
    assert manifest.source["notes"]["train"]["split"]["val_fraction"] == 0.2


def test_what_is_left_out_of_the_source_is_said(tmp_path):
    root = write_image_folder(tmp_path / "pets", {split: {"ant": 2, "bee": 2} for split in ("train", "val", "test")})
    (root / "val" / "ant" / "000.jpg").rename(root / "val" / "stray.jpg")
    done = python(CONVERT, "folder", "--source", str(root))
    assert done.returncode == 0, done.stderr
    assert f"{root}: left out, since no split has them: test/\n" in done.stdout
    assert "val: 1 images ignored, since they lie in no class folder\n" in done.stdout
    assert read_manifest(tmp_path / "pets-packed").source["notes"]["train"] == {"left_out": ["test/"]}


def test_files_that_are_ignored_are_told_by_their_suffixes(tmp_path):
    root = write_image_folder(tmp_path / "pets", {"train": {"ant": 2, "bee": 2}})
    for name in ("a.gif", "b.GIF", "notes.txt", "README"):
        (root / "train" / "ant" / name).write_bytes(b"")
    done = python(CONVERT, "folder", "--source", str(root))
    assert done.returncode == 0, done.stderr
    told = "train: 4 files ignored, since by their names they are no images (2 .gif, 1 without a suffix, 1 .txt)\n"
    assert told in done.stdout


@pytest.mark.parametrize(("dataset", "expected"), [("imagenet", "1,000"), ("cifar10", "10"), ("cifar100", "100")])
def test_another_number_of_classes_than_the_data_set_has_is_one_line(tmp_path, dataset, expected):
    root = write_image_folder(tmp_path / "pets", {"train": {"ant": 1, "bee": 1, "cat": 1}})
    done = python(CONVERT, dataset, "--source", str(root))
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("warning: "))
    assert f"{root} has 3 classes and {dataset} {expected}" in line
    assert "warning" not in python(CONVERT, "folder", "--source", str(root), "--overwrite").stdout


def test_ten_classes_are_cifar10_s(tmp_path):
    root = write_image_folder(tmp_path / "ten", {"train": {f"class{label}": 1 for label in range(10)}})
    assert "warning" not in python(CONVERT, "cifar10", "--source", str(root)).stdout


def test_what_is_said_of_sizes_is_what_the_files_take_of_the_disk(image_folder, tmp_path):
    done = python(CONVERT, "folder", "--source", str(image_folder), "--out", str(tmp_path / "out"))
    path = tmp_path / "out" / "train.beton"
    taken = path.stat().st_blocks * 512
    assert taken < 1 << 20 < path.stat().st_size, "its pages have holes"
    assert f"{path}: 37 samples, {readable_bytes(taken)} on disk (beton)\n" in done.stdout
    told = re.search(r"train: 37 samples will take about ([0-9.]+) kB \(estimated from 37\)\n", done.stdout)
    written = [*(image_folder / "train").rglob("*.jpg"), *(tmp_path / "out").glob("train.seek")]
    assert told and float(told[1]) * 1000 == pytest.approx(sum(path.stat().st_size for path in written), rel=0.01)


def test_a_class_that_nothing_is_left_of_is_said(tmp_path):
    root = write_image_folder(tmp_path / "in", {"train": {"ant": 3, "bee": 2, "cat": 2}})
    for path in (root / "train" / "bee").iterdir():
        path.write_bytes(b"no image")
    (root / "train" / "ant" / "000.jpg").write_bytes(b"no image")
    done = python(CONVERT, "folder", "--source", str(root), "--on-bad", "skip")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("warning: "))
    assert "'train' has no sample of 1 classes: 'bee'" in line


def test_cifar_as_a_tree_of_images_becomes_raw_pixels_with_test_as_val(tmp_path):
    root = write_image_folder(tmp_path / "cifar", {"train": {"cat": 4, "dog": 4}, "test": {"cat": 2, "dog": 2}})
    done = python(CONVERT, "cifar10", "--source", str(root))
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "cifar-packed")
    assert manifest.settings["write_mode"] == "raw" and sorted(manifest.splits) == ["train", "val"]


@pytest.mark.parametrize(("dataset", "to", "is_told"), [("folder", "raw", False), ("cifar10", "shards", True)])
def test_how_many_images_kept_their_bytes_is_told_of_sets_with_jpegs_alone(dataset, to, is_told, tmp_path):
    root = write_image_folder(tmp_path / "set", {"train": {"ant": 2}, "val": {"ant": 1}})
    done = python(CONVERT, dataset, "--source", str(root), "--to", to)
    assert done.returncode == 0, done.stderr
    assert ("3 images kept their bytes, 0 did not" in done.stdout) is is_told
    assert ("kept their bytes" in done.stdout) is is_told


def test_the_write_mode_of_a_data_set_is_no_hindrance_to_formats_without_it(tmp_path):
    root = write_image_folder(tmp_path / "cifar", {"train": {"cat": 4, "dog": 4}, "test": {"cat": 2, "dog": 2}})
    done = python(CONVERT, "cifar10", "--source", str(root), "--to", "raw,shards")
    assert done.returncode == 0, done.stderr


def test_generated_photos_are_packed_and_kept_for_the_next_time(tmp_path):
    sizes = ["--num-train", "8", "--num-val", "4", "--classes", "4"]
    command = [CONVERT, "synthetic", "--out", str(tmp_path / "s"), *sizes]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    assert "12 photos generated, 0 were there" in done.stdout
    assert "0 photos generated, 12 were there" in python(*command, "--overwrite").stdout
    assert len(open_records(tmp_path / "s", "train")) == 8
    assert len(list((tmp_path / "s-images" / "train").glob("*/*.jpg"))) == 8


def test_verify_and_show_read_what_was_packed(image_folder, tmp_path):
    out = tmp_path / "out"
    assert python(CONVERT, "folder", "--source", str(image_folder), "--out", str(out)).returncode == 0
    done = python(CONVERT, "verify", str(out))
    assert done.returncode == 0 and "60 samples" in done.stdout and "all as the manifest says" in done.stdout
    done = python(CONVERT, "show", str(out), "--sheet", str(tmp_path / "sheet.png"), "--num-samples", "4")
    assert done.returncode == 0, done.stderr
    assert "3 classes" in done.stdout and (tmp_path / "sheet.png").stat().st_size > 1000
    with open(out / "val.beton", "r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"damage")
    done = python(CONVERT, "verify", str(out))
    assert done.returncode == 2 and "wrong: " in done.stdout and "val.beton" in done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    (out / "train.beton").unlink()
    done = python(CONVERT, "verify", str(out))
    assert done.returncode == 2 and f"{out}: for that, no image of it was looked at\n" in done.stdout
    assert done.stdout.count("wrong: ") == 2 and "(2 wrong, as above)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["imagnet"], "did you mean imagenet?"),
        (["imagenet", "--sorce", "x"], "did you mean --source?"),
        (["cifar10", "--write-mode", "jpeg"], "did you mean jpg?"),
        (["folder", "--source", ".", "--to", "beton,shard"], "did you mean shards?"),
        (["folder", "--source", ".", "--to", "beton,beton"], "each format once"),
        (["folder", "--source", ".", "--preset", "255"], "did you mean 256?"),
        (["folder", "--source", ".", "--preset", "256", "--max-side", "9"], "sets the size itself"),
        (["folder", "--source", ".", "--short-side", "9", "--max-side", "9"], "exclude each other"),
        (["folder", "--source", ".", "--max-side", "0"], "a limit of 0 px is outside 1"),
        (["folder", "--source", ".", "--short-side", "0"], "a limit of 0 px is outside 1"),
        (["folder", "--source", ".", "--jpeg-share", "0.5"], "--write-mode mix"),
        (["folder", "--source", ".", "--to", "shards", "--write-mode", "raw"], "give --to beton,shards"),
        (["cifar10", "--to", "raw", "--write-mode", "raw"], "(raw there is pixels in any case)"),
        (["folder", "--source", ".", "--val-fraction", "2"], "between 0 and 1"),
        (["folder", "--source", ".", "--workers", "0"], "--workers: '0' is not a whole number of 1 or more"),
        (["folder", "--source", ".", "--workers", "-1"], "--workers: '-1' is not a whole number of 1 or more"),
        (["verify", ".", "--workers", "0"], "--workers: '0' is not a whole number of 1 or more"),
        (["--bogus", "1", "folder"], "--bogus stands where the command belongs: first one of imagenet, cifar10,"),
        (["folder", "--source", ".", "--to", "beton", "--to", "raw,beton"], "--to beton,raw,beton makes no sense"),
        (["imagenet", "--source", "nowhere"], "nowhere does not exist"),
        (["verify"], "required"),
        (["verify", "nowhere"], "nowhere"),
        (["show", "nowhere"], "nowhere has no manifest.json: give a packed folder, what --out named when packing"),
        (["cifar10", "--source", "nowhere"], "give --download to fetch it"),
        (["folder"], "--source"),
        ([], "required"),
    ],
)
def test_what_cannot_be_is_one_sentence_with_the_nearest_that_can(arguments, words, tmp_path):
    assert words in refused(*arguments, cwd=tmp_path)


def test_a_broken_image_is_named_and_may_be_skipped(tmp_path):
    root = write_image_folder(tmp_path / "in", {"train": {"ant": 4}})
    broken = root / "train" / "ant" / "002.jpg"
    broken.write_bytes(broken.read_bytes()[:-60])
    assert str(broken) in refused("folder", "--source", root)
    assert [path.name for path in (tmp_path / "in-packed").iterdir()] == ["packing.partial"]
    done = python(CONVERT, "folder", "--source", str(root), "--on-bad", "skip")
    assert done.returncode == 0 and "train: 1 bad samples left out" in done.stdout
    bad = [json.loads(line) for line in (tmp_path / "in-packed" / "bad_samples.jsonl").read_text().splitlines()]
    assert [(item["where"], item["name"]) for item in bad] == [(str(broken), "ant/002.jpg")]
    assert len(open_records(tmp_path / "in-packed", "train")) == 3


def test_what_pillow_only_warns_of_is_not_said_since_it_names_no_image(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "in" / split / "a").mkdir(parents=True)
        palette = Image.fromarray(smooth_picture(40, 30, 0)).quantize()
        palette.save(tmp_path / "in" / split / "a" / "0.png", transparency=bytes(range(256)))
    done = python(CONVERT, "folder", "--source", str(tmp_path / "in"))
    assert (done.returncode, done.stderr) == (0, "")


def test_packing_into_the_source_is_refused(image_folder):
    assert "lies inside" in refused("folder", "--source", image_folder, "--out", image_folder / "packed")


def hear_ctrl_c():
    """In the child: whoever started the tests may ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def begun(large_folder, out):
    """The command, under way, in a process group of its own."""
    command = [sys.executable, CONVERT, "folder", "--source", str(large_folder), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )
    while not (out / "packing.partial" / "train.beton").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_one_line_and_the_same_command_goes_on(large_folder, packed_straight, tmp_path, number):
    out = tmp_path / "out"
    process = begun(large_folder, out)
    os.killpg(process.pid, number)  # the whole group, as a terminal does
    _, complaint = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + number
    said = [line for line in complaint.splitlines() if not re.match(r"[\w ]+: [\d,]+( of [\d,]+)?, ", line)]
    assert said == ["interrupted: the same command goes on where this one stopped"], complaint  # beside how far it is
    assert [path.name for path in out.iterdir()] == ["packing.partial"]
    wait_until_gone(process.pid)
    done = python(CONVERT, "folder", "--source", str(large_folder), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == packed_straight


@pytest.fixture(scope="module")
def packed_straight(large_folder, tmp_path_factory):
    """What packing the large folder gives when nothing comes in between."""
    out = tmp_path_factory.mktemp("straight") / "out"
    done = python(CONVERT, "folder", "--source", str(large_folder), "--out", str(out), "--workers", "1")
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_killed_it_leaves_no_final_name_and_no_process_and_goes_on(large_folder, packed_straight, tmp_path):
    out = tmp_path / "out"
    process = begun(large_folder, out)
    process.kill()
    process.wait()
    assert [path.name for path in out.iterdir()] == ["packing.partial"]
    wait_until_gone(process.pid)
    done = python(CONVERT, "folder", "--source", str(large_folder), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == packed_straight


def test_ctrl_c_while_it_is_still_starting_leaves_no_traceback(large_folder, tmp_path):
    command = [sys.executable, CONVERT, "folder", "--source", str(large_folder), "--out", str(tmp_path / "out")]
    for delay_s in (0.0, 0.1, 0.2):
        process = subprocess.Popen(
            command,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=hear_ctrl_c,
        )
        while "numpy" not in Path(f"/proc/{process.pid}/maps").read_text():
            time.sleep(0.001)  # before our first line, Python's own start answers Ctrl-C in its own way
        time.sleep(delay_s)
        os.killpg(process.pid, signal.SIGINT)
        _, complaint = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130 and "Traceback" not in complaint, delay_s


def test_cifar_is_downloaded_where_that_is_asked_for(tmp_path):
    """From a server and with an archive of the test's own: torchvision's address and checksums are replaced."""
    script = """
import functools, hashlib, http.server, pathlib, pickle, sys, tarfile, threading
import numpy as np
work, repository = pathlib.Path(sys.argv[1]), sys.argv[2]
folder = work / "served" / "cifar-10-batches-py"
folder.mkdir(parents=True)
text = lambda word: b"U" + bytes([len(word)]) + word  # a string as Python 2 pickled it
def old_pickle(**values):
    entries = (text(key.encode()) + value + b"s" for key, value in values.items())
    return b"\\x80\\x02}" + b"".join(entries) + b"."
names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]
for name in names:
    images, labels = (pickle.dumps(value, 2)[2:-1] for value in (np.full((4, 3072), 9, np.uint8), [0, 1, 2, 3]))
    (folder / name).write_bytes(old_pickle(data=images, labels=labels))
classes = b"]" + b"".join(text(str(n).encode()) + b"a" for n in range(10))
(folder / "batches.meta").write_bytes(old_pickle(label_names=classes))
archive = work / "served" / "cifar-10-python.tar.gz"
with tarfile.open(archive, "w:gz") as tar:
    tar.add(folder, folder.name)
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=archive.parent)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
from torchvision.datasets import CIFAR10
md5 = lambda path: hashlib.md5(path.read_bytes()).hexdigest()
CIFAR10.url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
CIFAR10.tgz_md5 = md5(archive)
CIFAR10.train_list = [[name, md5(folder / name)] for name in names[:5]]
CIFAR10.test_list = [["test_batch", md5(folder / "test_batch")]]
CIFAR10.meta = {**CIFAR10.meta, "md5": md5(folder / "batches.meta")}
sys.path.insert(0, repository)
from converters.command import main
from tools.convert import download
sys.exit(main(["cifar10", "--source", str(work / "cifar10"), "--download"], "", download))
"""
    done = python("-c", script, str(tmp_path), str(REPOSITORY))
    assert done.returncode == 0, done.stderr
    assert len(open_records(tmp_path / "cifar10-packed", "train")) == 20


def test_a_download_that_fails_is_one_sentence(tmp_path):
    script = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from torchvision.datasets import CIFAR100\n"
        "CIFAR100.url = 'http://127.0.0.1:9/cifar-100-python.tar.gz'\n"
        "from converters.command import main\n"
        "from tools.convert import download\n"
        f"sys.exit(main(['cifar100', '--source', {str(tmp_path / 'c')!r}, '--download'], '', download))"
    )
    done = python("-c", script)
    assert done.returncode == 2 and "could not be downloaded" in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr


def test_it_starts_without_torch_and_matplotlib():
    done = python("-c", "import converters.command, sys; assert not {'torch', 'matplotlib'} & sys.modules.keys()")
    assert done.returncode == 0, done.stderr


def test_with_standard_output_closed_it_packs_as_well(image_folder, tmp_path):
    command = [sys.executable, CONVERT, "folder", "--source", str(image_folder), "--out", str(tmp_path / "out")]
    done = run(["bash", "-c", f"{shlex.join(command)} >&-"])
    assert (done.returncode, done.stderr) == (0, "") and len(open_records(tmp_path / "out", "train")) == 37


def test_bad_files_are_the_answer_even_where_nobody_reads_which(image_folder, tmp_path):
    """As for `verify | head`: what it says comes at the end, too."""
    out = tmp_path / "out"
    assert python(CONVERT, "folder", "--source", str(image_folder), "--out", str(out)).returncode == 0
    (out / "train.beton").write_bytes(b"")
    verify = shlex.join([sys.executable, CONVERT, "verify", str(out)])
    done = run(["bash", "-c", f"PYTHONUNBUFFERED= {verify} | true; exit ${{PIPESTATUS[0]}}"])
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"error: {out} is not what its manifest says")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("word", ["folder", "verify", "show"])
def test_where_nobody_reads_on_it_ends_without_a_traceback(image_folder, tmp_path, word, unbuffered):
    """As behind `| head -1`."""
    pack = ["folder", "--source", str(image_folder), "--out", str(tmp_path / "out")]
    if word != "folder":
        assert python(CONVERT, *pack).returncode == 0
    nobody, mouth = os.pipe()
    os.close(nobody)
    with os.fdopen(mouth, "wb") as stdout:
        ended = subprocess.run(
            [sys.executable, CONVERT, *(pack if word == "folder" else [word, str(tmp_path / "out")])],
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**environment(), "PYTHONUNBUFFERED": unbuffered},
            text=True,
            timeout=TIMEOUT_S,
        )
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_it_packs_where_output_is_closed_from_the_start(image_folder, tmp_path, closed):
    words = [sys.executable, CONVERT, "folder", "--source", image_folder, "--out", tmp_path / "out"]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *map(str, words)]
    ended = subprocess.run(shell, capture_output=True, env=environment(), text=True, timeout=TIMEOUT_S)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(open_records(tmp_path / "out", "train")) == 37


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_what_it_says_is_not_taken_for_that_of_the_set(image_folder, tmp_path, unbuffered):
    out = tmp_path / "out"

    def unheard(*words):
        with open("/dev/full", "wb") as full:
            return subprocess.run(
                [sys.executable, CONVERT, *words],
                stdout=full,
                stderr=subprocess.PIPE,
                env={**environment(), "PYTHONUNBUFFERED": unbuffered},
                text=True,
                timeout=TIMEOUT_S,
            )

    told = "warning: what is printed from here on is lost (No space left on device), and the command goes on\n"
    for asked in (["--help"], ["folder", "--help"]):  # whose answer it was
        answer = unheard(*asked)
        assert (answer.returncode, answer.stderr) == (120, told)
    packed = unheard("folder", "--source", str(image_folder), "--out", str(out))
    assert (packed.returncode, packed.stderr) == (0, told)
    assert len(open_records(out, "train")) == 37
    for word in ("verify", "show"):  # whose answer is what is lost
        answered = unheard(word, str(out))
        assert (answered.returncode, answered.stderr) == (120, told)
