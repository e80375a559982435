"""What turns a kind of augmentation on does so for those who train and for those who ask whether there is any."""

import dataclasses

import pytest

from engine.augment.augment_config import OFF, AugmentConfig
from engine.augment.batch_transform import build_augmentation

_ON = {"shift_px": 2, "policy": "rand"}
_SWITCHES = [(kind, name) for kind, settings in OFF.items() for name in settings]


def _stages(config):
    made = build_augmentation(config, 0, 3)
    return [type(stage).__name__ for stage in (*made._on_pixels, *made._on_inputs, made._mix) if stage is not None]


@pytest.mark.parametrize(("kind", "name"), _SWITCHES)
def test_each_switch_turns_on_its_kind_and_no_other(kind, name):
    config = AugmentConfig(**{name: _ON.get(name, 0.3)})
    assert [other for other in OFF if config.turns_on(other)] == [kind]
    assert len(_stages(config)) == 1


def test_all_is_off_by_default_and_settings_that_switch_nothing_turn_nothing_on():
    switches = {name for _, name in _SWITCHES}
    default = AugmentConfig()
    others = {field.name for field in dataclasses.fields(default)} - switches
    changed = {"policy_operations": 1, "policy_magnitude": 1, "jitter_probability": 0.5, "erase_area": (0.1, 0.2)}
    changed |= {"erase_ratio": (0.5, 2.0), "erase_fill": "colour", "cutmix_share": 0.1, "mix_probability": 0.5}
    changed |= {"mix_each": "sample"}
    assert set(changed) == others  # a new setting is either a switch, or stands here
    for config in (default, AugmentConfig(**changed)):
        assert not any(config.turns_on(kind) for kind in OFF) and not _stages(config)
