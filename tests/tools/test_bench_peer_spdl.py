"""spdl's side of `bench.py load`, where spdl is installed."""

import pytest

pytest.importorskip("spdl.io", reason="spdl is not installed", exc_type=ImportError)

import spdl.io

from tools.benchmarks.loading import peer_spdl
from tools.benchmarks.loading.job import Job


def test_without_ffmpegs_libraries_it_ends_and_does_not_wait_for_ever(image_folder, monkeypatch):
    def lacking(path):
        raise RuntimeError("Failed to import libspdl")

    monkeypatch.setattr(spdl.io, "get_video_filter_desc", lambda **_: "")  # needs them too
    monkeypatch.setattr(spdl.io, "demux_image", lacking)
    job = Job("spdl", {"folder": str(image_folder / "train")}, "photos", 32, 4, 1, 0.1, 0.0, 0)
    with pytest.raises(RuntimeError, match="libspdl"):
        next(peer_spdl.pixels(job))
