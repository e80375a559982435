"""What a loader is told: bad values are refused before anything is opened."""

import pytest
import torch

from loaders.api import LoaderOptions
from loaders.errors import FeedrateError


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_device_may_be_given_as_torch_takes_it(device):
    assert LoaderOptions(device=device).device == torch.device("cpu")
    assert LoaderOptions(device="cuda:1").device == torch.device("cuda", 1)


@pytest.mark.parametrize("device", ["gpu", None, 1.5])
def test_a_device_that_is_none_is_one_sentence(device):
    with pytest.raises(FeedrateError, match=r"device is .*: it must be one of torch's, such as 'cpu'") as caught:
        LoaderOptions(device=device)
    assert "\n" not in str(caught.value)


def test_what_becomes_of_bad_samples_and_how_to_resize_are_refused_where_they_are_unknown():
    """What is not "error" would else be taken for "substitute", in an evaluation too."""
    with pytest.raises(FeedrateError, match="on_bad is 'skip': known are error, substitute"):
        LoaderOptions(on_bad="skip")
    with pytest.raises(FeedrateError, match="resize is 'bilinear': known are None, area, exact, bicubic, device"):
        LoaderOptions(resize="bilinear")
