"""The sides of `bench.py cifar-speed`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CifarSide:
    """`runs`: its module here and a class in it, made of a CifarJob, with `warm_up()` and `run(number)`."""

    runs: str
    title: str
    package: str
    remedy: str


SIDES = {
    "feedrate": CifarSide(
        "cifar_ours.Ours",
        "the preset `cifar10_fast` by `engine/train.py`'s own loop; what is evaluated after each epoch is its net over"
        " six views of each image",
        "feedrate",
        "",
    ),
    "airbench": CifarSide(
        "cifar_airbench.Airbench",
        "airbench94 of the package airbench: its own loop, loader and clock (CUDA events); what is evaluated is its net"
        " over six views of each image, at the end, and over one after each epoch",
        "airbench",
        "uv pip install airbench",
    ),
}
OURS, PEER = SIDES
