"""What is tried for predictions, and why the rest is not."""

from dataclasses import replace

import pytest
from short_runs import short_config
from shown_profiles import bare, with_subject

from engine.profiler import calibration
from engine.profiler.calibration import THE_LOADER, THE_STEP, Calibration
from engine.profiler.record import Rate
from loaders.errors import FeedrateError

RATE, FASTER = Rate((10.0, 20.0)), Rate((11.0, 22.0))


@pytest.fixture
def calibrated(tmp_path, monkeypatch):
    """A Calibration of a profile on some device with some loader; `missing` loaders are not installed."""

    def made(device, loader="turbo", missing=(), batch_size=8, views=1, **subject):
        def choose(name):
            if name in missing:
                raise FeedrateError(f"loader '{name}' is not installed")

        monkeypatch.setattr(calibration, "choose_loader", choose)
        config = short_config(tmp_path, tmp_path, loader)
        config = replace(config, data=replace(config.data, batch_size=batch_size, views=views))
        return Calibration(with_subject(bare(), device=device, loader=loader, **subject), config, None)

    return made


def reason(found, beginning):
    (told,) = [told for told in found.refused if told.startswith(beginning)]
    return told


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_loader_is_tried_or_has_its_reason(calibrated, device):
    found = calibrated(device, missing=("ffcv",))
    tried = {trial.name for trial in found.trials}
    assert {"loader torchvision", "loader dali"} <= tried and not any("synthetic" in name for name in tried)
    assert "short turn" in reason(found, "loader resident: ")
    assert reason(found, "loader 'ffcv'").endswith("is not installed")


def test_decoding_on_the_gpu_is_that_of_dali_and_is_predicted_or_has_its_reason(calibrated):
    rates = {THE_STEP: RATE, THE_LOADER: RATE, "loader dali": FASTER, "loader ffcv": FASTER}
    texts = [change.text for change in calibrated("cuda").changes(rates)]
    assert texts == ["loader ffcv", "loader dali (GPU decode)"]
    assert [change.text for change in calibrated("cpu").changes(rates)] == ["loader ffcv", "loader dali"]
    assert reason(calibrated("cuda", missing=("dali",)), "GPU decode: ").endswith("loader 'dali' is not installed")
    assert reason(calibrated("cuda", "dali"), "GPU decode: ") == "GPU decode: loader 'dali' decodes there already"
    assert not any("GPU decode" in told for told in calibrated("cpu", "dali").refused)


def test_a_batch_that_is_not_tried_has_its_reason(calibrated):
    assert {"batch 4", "batch 16"} <= {trial.name for trial in calibrated("cpu", num_samples=16).trials}
    assert reason(calibrated("cpu", num_samples=15), "batch 16: ") == "batch 16: an epoch has 15 images"
    assert reason(calibrated("cpu", views=8), "batch 4: ") == "batch 4: it must be a multiple of 8 and above 0"
    assert not any(told.startswith("batch") for told in calibrated("cpu", views=4, num_samples=4).refused)


def test_what_has_no_rate_is_no_change_and_neither_is_what_now_has_none(calibrated):
    found = calibrated("cpu")
    assert found.changes({"batch 16": FASTER, "loader ffcv": FASTER}) == []
    (change,) = found.changes({"batch 16": FASTER, "loader ffcv": FASTER, THE_STEP: RATE})
    assert change.step == pytest.approx((1.1, 1.1)) and change.settings == {"data.batch_size": 16}
