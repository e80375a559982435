"""The kernel is compiled once, found again, never trusted, and done without where it cannot be had."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loaders import resampling
from loaders.cache_folder import cache_folder
from loaders.native import library, self_check

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and nothing loaded yet; afterwards as before."""
    if library.load() is None:
        pytest.skip(library.why_not())
    monkeypatch.setenv("FEEDRATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEEDRATE_NATIVE", raising=False)
    _forget()
    yield tmp_path / "cache"
    _forget()


def _forget() -> None:
    library._load_once.cache_clear()
    library._why_not_in.cache_clear()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A cache with the kernel in it; not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    ahead = [sys.executable, "-m", "loaders.native.library"]
    environment = {**os.environ, "FEEDRATE_CACHE": str(folder)}
    done = subprocess.run(ahead, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and str(folder) in done.stdout and not done.stderr
    return folder


def is_refused(*words: str) -> bool:
    """That there is no kernel, and one sentence with these words says why."""
    reason = library.why_not()
    return library.load() is None and "\n" not in reason and all(word in reason for word in words)


def never(*args, **kwargs):
    raise AssertionError("it was compiled again")


def test_the_second_start_compiles_nothing(built, cache, monkeypatch):
    shutil.copytree(built, cache)
    monkeypatch.setattr(subprocess, "run", never)
    assert library.load() is not None and library.why_not() == ""
    assert [path.suffix for path in cache.iterdir()] == [".so"]  # and no rest of the work


def test_it_can_be_switched_off(built, cache, monkeypatch):
    shutil.copytree(built, cache)
    monkeypatch.setenv("FEEDRATE_NATIVE", "0")
    assert is_refused("FEEDRATE_NATIVE=0")
    monkeypatch.setenv("FEEDRATE_NATIVE", "1")
    assert library.load() is not None


def test_without_a_compiler_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert is_refused("no", "compiler", "install", "libjpeg-dev")


def test_a_compiler_that_finds_no_header_is_quoted(tmp_path, monkeypatch):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'jpeg_window.c:9:10: fatal error: jpeglib.h: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert is_refused("jpeglib.h: No such file", "libjpeg-dev")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEEDRATE_CACHE", str(tmp_path / "file"))
    assert is_refused(str(tmp_path / "file"), "FEEDRATE_CACHE")


def test_a_cache_may_be_named_as_seen_from_where_it_is_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, folder in (("here", tmp_path / "here"), ("~/there", tmp_path / "home" / "there")):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("FEEDRATE_CACHE", name)
        _forget()
        assert library.load() is not None, library.why_not()
        assert [path.suffix for path in folder.iterdir()] == [".so"]


def test_where_nothing_is_set_the_cache_is_where_programs_have_theirs(tmp_path, monkeypatch):
    monkeypatch.delenv("FEEDRATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "all"))
    assert cache_folder() == tmp_path / "all" / "feedrate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "feedrate"


@pytest.mark.parametrize("way", ["cut short", "overwritten"])
def test_a_damaged_file_in_the_cache_is_built_anew(built, cache, way):
    shutil.copytree(built, cache)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    damaged = {"cut short": whole[:9000], "overwritten": whole[:5000] + b"\0" * 99 + whole[5099:]}[way]
    path.write_bytes(damaged)
    assert library.load() is not None
    assert len(path.read_bytes()) == len(whole)


def test_a_library_that_the_system_cannot_load_is_built_anew(built, cache):
    from hashlib import sha256

    shutil.copytree(built, cache)
    (path,) = cache.iterdir()
    path.write_bytes(b"of another machine" + sha256(b"of another machine").digest())
    assert library.load() is not None


def test_several_processes_may_build_at_once(cache):
    ahead = [sys.executable, "-m", "loaders.native.library"]
    processes = [subprocess.Popen(ahead, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    assert len(list(cache.iterdir())) == 1
    assert library.load() is not None


@pytest.mark.parametrize(
    ("file", "right", "wrong", "reason"),
    [
        ("linear_resize.c", ">> 16) + 2) >> 2", ">> 16) + 1) >> 2", "OpenCV"),
        ("area_columns.c", "(float)(1.0 / cell)", "(float)(1.001 / cell)", "OpenCV"),
        ("paint.c", "width - before - pixels.width", "before", "OpenCV"),
        ("paint.c", "out + 3 * starts[i]", "out + 3 * starts[0]", "NumPy"),
        ("jpeg_window.c", "MARGIN = 2", "MARGIN = 0", "simplejpeg"),
        ("jpeg_reader.c", "JDCT_ISLOW", "JDCT_IFAST", "simplejpeg"),
        ("huffman.c", "left / unit_width(info)", "left / unit_width(info) + 1", "simplejpeg"),
        ("huffman.h", "block[huffman_natural[second]]", "block[second]", "simplejpeg"),
        ("huffman.c", "block != NULL, block", "0, block", "simplejpeg"),
        ("seek_points.c", "stretch->last_dc[i] = from->dc[i]", "stretch->last_dc[i] = 0", "simplejpeg"),
        ("huffman_rows.c", "by_pairs, 1, cursor->block", "by_pairs, 0, cursor->block", "simplejpeg"),
        ("huffman_table.c", "(run == 15 ? 16", "(run == 15 ? 15", "simplejpeg"),
    ],
)
def test_a_kernel_with_other_bits_is_refused(tmp_path, monkeypatch, file, right, wrong, reason):
    folder = tmp_path / "sources"
    shutil.copytree(Path(library.__file__).parent, folder)
    source = folder / file
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, wrong))
    if file == "linear_resize.c":  # the vector code has the same constant
        source.write_text(source.read_text().replace("_mm256_set1_epi16(2)", "_mm256_set1_epi16(1)"))
    monkeypatch.setattr(library, "_SOURCES", folder)
    monkeypatch.setattr(library, "_FLAGS", ("-O1", *library._FLAGS[1:]))  # sooner
    assert is_refused(reason, "otherwise")


@pytest.mark.parametrize("version", [62, 70, 80])
def test_it_compiles_with_the_headers_of_every_libjpeg_turbo(tmp_path, version):
    """Ubuntu's and conda's have the interface of version 8, in which components are scaled otherwise."""
    asked = subprocess.run(
        [*library._compiler(), "-E", "-dM", "-include", "jconfig.h", "-x", "c", "/dev/null"],
        capture_output=True,
        text=True,
    )
    if asked.returncode:
        pytest.skip("no header jconfig.h")
    defined = [line for line in asked.stdout.splitlines() if "JPEG" in line and "JPEG_LIB_VERSION" not in line]
    defined += [f"#define JPEG_LIB_VERSION {version}", "#define MEM_SRCDST_SUPPORTED 1", "#define BITS_IN_JSAMPLE 8"]
    (tmp_path / "jconfig.h").write_text("".join(f"{line}\n" for line in dict.fromkeys(defined)))
    sources = sorted(map(str, Path(library.__file__).parent.glob("*.c")))
    command = [*library._compiler(), "-std=gnu11", "-fsyntax-only", *library._STRICT, "-I", str(tmp_path), *sources]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", ["OpenCV", "simplejpeg"])
def test_another_version_of_what_it_imitates_means_doing_without(built, cache, monkeypatch, what):
    shutil.copytree(built, cache)
    if what == "OpenCV":
        resize = self_check.cv2.resize
        monkeypatch.setattr(self_check.cv2, "resize", lambda *args, **kwargs: resize(*args, **kwargs) ^ np.uint8(1))
    else:
        decode = self_check.simplejpeg.decode_jpeg
        monkeypatch.setattr(self_check.simplejpeg, "decode_jpeg", lambda *args: decode(*args) ^ np.uint8(1))
    assert is_refused(what, "otherwise")


@pytest.mark.parametrize("way", ["the kernel", "Pillow"])
@pytest.mark.parametrize("mode", ["exact", "bicubic"])
def test_where_only_one_mode_differs_only_that_does_without(mode, tmp_path, built, cache, monkeypatch, way):
    if way == "Pillow":
        shutil.copytree(built, cache)
        image, resize = resampling.Image.Image, resampling.Image.Image.resize
        monkeypatch.setattr(image, "resize", lambda *args: resize(*args).point(lambda value: value ^ 1))
    else:
        folder = tmp_path / "sources"
        shutil.copytree(Path(library.__file__).parent, folder)
        source = folder / "pillow_resize.c"
        right = "2 * (source.width - size)"
        assert right in source.read_text()
        source.write_text(source.read_text().replace(right, "source.width - size"))
        monkeypatch.setattr(library, "_SOURCES", folder)
    assert library.load() is not None and library.why_not() == ""
    assert library.load(mode) is None
    reason = library.why_not(mode)
    assert f"mode {mode}" in reason and "Pillow" in reason and "\n" not in reason


def test_whatever_else_goes_wrong_is_a_sentence_too(monkeypatch):
    def broken(path):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(library, "_is_whole", broken)
    assert is_refused("RuntimeError", "two lines")
