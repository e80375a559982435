"""What an image costs, from bytes and pixels: parameters are found again, and samples are carried to the set."""

import pytest

from engine.profiler.calibration import FormatSample, FormatSamples, carried
from engine.profiler.decode_model import DecodeModel, StoredImages, fit_decode_model

TRUTH = DecodeModel(own=40, jpeg_byte=0.006, jpeg_pixel=0.001, raw_byte=0.0003)
JPEGS = [StoredImages(110_000, 190_000), StoredImages(35_000, 110_000), StoredImages(27_000, 85_000)]
RAW = [StoredImages(570_000, 190_000, True), StoredImages(255_000, 85_000, True)]


def test_costs_that_were_measured_come_out_again():
    found = fit_decode_model([(images, TRUTH.cost_us(images)) for images in (*JPEGS, *RAW)])
    for images in (*JPEGS, *RAW, StoredImages(60_000, 150_000), StoredImages(400_000, 133_000, True)):
        assert found.cost_us(images) == pytest.approx(TRUTH.cost_us(images), rel=0.02)


def test_by_hand_and_never_below_zero():
    assert TRUTH.cost_us(StoredImages(10_000, 20_000)) == pytest.approx(40 + 60 + 20)
    assert TRUTH.cost_us(StoredImages(60_000, 20_000, True)) == pytest.approx(40 + 18)
    # fewer bytes that cost more: no term may become negative to explain that
    found = fit_decode_model([(StoredImages(1000, 1000), 50.0), (StoredImages(500, 2000), 80.0)])
    assert min(found.own, found.jpeg_byte, found.jpeg_pixel, found.raw_byte) >= 0


def test_one_format_alone_is_proportional():
    found = fit_decode_model([(JPEGS[0], 800.0)])
    assert found.cost_us(JPEGS[0]) == pytest.approx(800)


def test_a_sample_lighter_than_the_set_is_carried_to_it():
    now, new, raw = JPEGS[0], JPEGS[2], RAW[0]
    whole = now.scaled(2, 1.5)
    samples = FormatSamples(FormatSample("a", "", "", now), {}, whole, 10)
    of_set, factor = carried(TRUTH, samples, FormatSample("b", "", "", new))
    assert (of_set.num_bytes, of_set.num_pixels) == (54_000, 127_500)
    of_sample = TRUTH.cost_us(now) / TRUTH.cost_us(new)
    assert factor * of_sample == pytest.approx(TRUTH.cost_us(whole) / TRUTH.cost_us(of_set))
    same = FormatSamples(FormatSample("a", "", "", now), {}, now, 10)
    assert carried(TRUTH, same, FormatSample("c", "", "", raw))[1] == pytest.approx(1)
