"""Whether DALI and torch share tensors through DLPack here, though built for different CUDA versions: one sentence.

python tools/gpu_smoke.py [cpu]

Exit status: 0 all of it works, 1 some of it does not, 2 there is nothing to try.
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    if sys.flags.safe_path:
        sys.path.append(str(REPOSITORY))  # tools/ is not installed
    else:
        # Python put tools/ first, where `profile.py` hides the standard library's
        sys.path[0] = str(REPOSITORY)

from engine.safeguards.early_end import end_early

if __name__ == "__main__":
    end_early()  # the imports below take seconds

import argparse
import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from engine.safeguards.exit_status import exit_status
from loaders.errors import FeedrateError
from tools.benchmarks.arguments import Parser
from tools.benchmarks.machine import DALI_PACKAGES, version_of

NUMBERS = np.arange(12, dtype=np.uint8).reshape(2, 6)


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    return exit_status(lambda: _try_all(arguments))


def _try_all(arguments: Sequence[str]) -> int:
    """Try everything and print the sentence."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", nargs="?", choices=("cuda", "cpu"), default="cuda", help="where (cuda)")
    device = parser.parse_args(arguments).device
    if device == "cuda" and not torch.cuda.is_available():
        raise FeedrateError("torch sees no CUDA device here")
    try:
        import nvidia.dali  # noqa: F401
    except ImportError as error:
        raise FeedrateError(f"DALI cannot be imported: {error}") from error
    # without a GPU DALI takes no tensor of torch's: its way to find out where one lies asks for a driver
    attempts = {name: attempt for name, attempt in ATTEMPTS.items() if device == "cuda" or attempt is not from_torch}
    told = {name: _tried(attempt, device) for name, attempt in attempts.items()}
    failed = {name: why for name, why in told.items() if why}
    packages = {name: version for name in DALI_PACKAGES if (version := version_of(name, otherwise=""))}
    dali = " and ".join(f"{name} {version}" for name, version in packages.items()) or "DALI"
    where = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    built = f"torch {torch.__version__} (CUDA {torch.version.cuda})"
    worked = ", ".join(name for name in told if name not in failed) or "nothing"
    broken = "".join(f"; {name} fails: {why}" for name, why in failed.items())
    print(f"{dali} with {built} on {where}: {worked} work{'s' if len(told) - len(failed) == 1 else ''}{broken}.")
    return 1 if failed else 0


def from_dali(device: str) -> None:
    """A tensor of DALI's is torch's, in the same memory, and outlives its pipeline."""
    shared = _shared(_numbers_graph(device, "cpu"), list(NUMBERS))
    assert shared.device.type == device, shared.device
    assert (shared.cpu().numpy() == NUMBERS).all(), "other numbers arrived"
    assert (shared + 1).sum().item() == NUMBERS.sum() + NUMBERS.size, "torch computes something else with it"


def from_torch(device: str) -> None:
    """A tensor of torch's is DALI's."""
    source = [torch.from_numpy(row.copy()).to(device) for row in NUMBERS]
    assert (_shared(_numbers_graph(device, "gpu"), source).cpu().numpy() == NUMBERS).all(), "other numbers arrived"


def decoded(device: str) -> None:
    """A JPEG decoded by DALI (on a GPU by `mixed`) is near Pillow's."""
    from nvidia.dali import fn, types

    file = io.BytesIO()
    picture = np.add.outer(np.arange(64), 2 * np.arange(64))[..., None] + np.array([0, 20, 40])
    Image.fromarray(picture.astype(np.uint8) % 200).resize((96, 80)).save(file, "JPEG", quality=90)
    stored = np.frombuffer(file.getvalue(), dtype=np.uint8)

    def outputs(files):  # type: ignore[no-untyped-def]  # DALI's graph nodes
        mixed = {"device": "mixed", "jpeg_fancy_upsampling": True}  # as loader `dali` asks for it
        return fn.decoders.image(files, output_type=types.RGB, **(mixed if device == "cuda" else {"device": "cpu"}))

    images = _shared(_graph(device, "cpu", outputs), [stored, stored])
    off = np.abs(images.cpu().numpy().astype(int) - np.asarray(Image.open(file)).astype(int))
    assert off.mean() < 2, f"pixels are off by {off.mean():.1f} levels on average"


ATTEMPTS: dict[str, Callable[[str], None]] = {
    "DALI's tensors in torch": from_dali,
    "torch's tensors in DALI": from_torch,
    "decoding JPEGs": decoded,
}


def _tried(attempt: Callable[[str], None], device: str) -> str:
    """Why it fails, or ""."""
    try:
        attempt(device)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}"
    return ""


def _numbers_graph(device: str, source: str):  # type: ignore[no-untyped-def]
    return _graph(device, source, lambda numbers: numbers.gpu() if device == "cuda" and source == "cpu" else numbers)


def _graph(device: str, source: str, outputs):  # type: ignore[no-untyped-def]
    from nvidia.dali import Pipeline, fn, types

    pipeline = Pipeline(batch_size=2, num_threads=1, device_id=0 if device == "cuda" else None, prefetch_queue_depth=1)
    with pipeline:
        pipeline.set_outputs(outputs(fn.external_source(name="fed", device=source, dtype=types.UINT8, ndim=1)))
    pipeline.build()
    return pipeline


def _shared(pipeline, fed) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """What comes out of it, as loader `dali` takes it."""
    pipeline.feed_input("fed", fed)
    pipeline.schedule_run()
    (output,) = pipeline.share_outputs()
    tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(output.as_tensor())
    pipeline.release_outputs()
    return tensor


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
