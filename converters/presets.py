"""What people pack for, as settings."""

from dataclasses import dataclass

from .encode import Encoding


@dataclass(frozen=True)
class Preset:
    """An encoding, and what it is good for."""

    purpose: str
    encoding: Encoding


PRESETS = {
    "full": Preset("no pixel changed: every baseline JPEG keeps its bytes", Encoding()),
    "500": Preset("longest side 500 px, the size FFCV's ResNet-50 recipes train on", Encoding(limit_px=500)),
    "400": Preset("longest side 400 px, the size of FFCV's ResNet-18 recipes", Encoding(limit_px=400)),
    "256": Preset(
        "shortest side 256 px, for the fastest decoding when training at up to 224 px",
        Encoding(limit_px=256, limited="shortest"),
    ),
}
