"""What to try where a stage holds a run back, in the words of the command line."""

_TURBO = "--loader turbo"
_SMALLER = "packing smaller images (tools/convert.py --preset 256)"
_LOWER_PRECISION = "mixed precision (--execution.precision bf16)"
_FEWER_UPDATES = "fewer updates (--optim.accumulate)"

_REMEDIES = {
    "read": (
        "keeping the packed set in memory (--data.page-cache memory)",
        "reading it in long runs (--data.order block)",
        "a faster disk",
    ),
    "decode": (_TURBO, _SMALLER, "packing raw ones, which need no decoding (--write-mode raw)"),
    "augment": (_TURBO, _SMALLER, "--data.resize area or device"),
    "collate": (_TURBO,),
    "hand-off": (_TURBO, "more --data.batches-ahead"),
    "pin": (_TURBO,),
    "copy": ("a smaller --data.size-px", "--loader resident, if the set fits on the device"),
    "prepare": ("fewer augmentations on the device",),
    "forward": (_LOWER_PRECISION, "--execution.compile", "a smaller model"),
    "backward": (_LOWER_PRECISION, "--execution.compile", "a smaller model"),
    "sync": ("exchanging gradients less often (--optim.accumulate)", "more images a rank at a time"),
    "clip": ("no clipping (--optim.clip-norm 0)", _FEWER_UPDATES),
    "optimizer": ("a cheaper optimizer (--optim.name sgd)", _FEWER_UPDATES),
    "other": ("logging and saving less often (--run.log-every-steps, --run.checkpoint-every-epochs)",),
}


def remedies(stage: str, loader: str) -> list[str]:
    """For one of the record's stages, the most promising first; none that is `loader`, which the run has already."""
    return [remedy for remedy in _REMEDIES[stage] if not remedy.startswith(f"--loader {loader}")]
