"""What a report says of the packages that were measured."""

from importlib import metadata

import pytest

from tools.benchmarks.machine import DALI_PACKAGES, version_of


@pytest.mark.parametrize("built_for", ["cuda120", "cuda130"])
def test_dali_is_found_whichever_cuda_it_was_built_for(built_for, monkeypatch):
    def version(package):
        if package != f"nvidia-dali-{built_for}":
            raise metadata.PackageNotFoundError(package)
        return "2.4.0"

    monkeypatch.setattr(metadata, "version", version)
    assert version_of(*DALI_PACKAGES) == "2.4.0" and version_of("torch", "numpy") == "not installed"
