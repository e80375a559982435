"""Where data are read from, as it is told."""

from engine.config import DataConfig
from engine.data_path import data_then_and_now


def test_of_another_path_and_another_normalisation_both_are_told(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[data]\npath = "a"\nnormalize = [1.0, 2.5, 3.0, 4.0, 5.0, 6.0]')
    of_normalize = "The run began with --data.normalize 1 2.5 3 4 5 6, and now it is half"
    half = DataConfig(path="a", normalize="half")
    assert data_then_and_now(file, half) == of_normalize
    assert data_then_and_now(file, DataConfig(path="a", normalize=(1, 2.5, 3, 4, 5, 6))).endswith("and a is read now")
    told = data_then_and_now(file, DataConfig(path="b", normalize="half"))
    assert told == f"The run began with --data.path a, and b is read now. {of_normalize}"
    file.write_text('[data]\npath = "a"')  # of before there was a choice
    assert "--data.normalize" not in data_then_and_now(file, DataConfig(path="b"))
    file.write_text('[data]\npath = "a"\nnormalize = 3')
    assert data_then_and_now(file, half) == "Now a is read"
