"""Run in a process of its own: what a training run says of the GPU's use, beside what `nvidia-smi dmon` says meanwhile.

python utilisation.py --device cuda --work FOLDER --out FILE [--source FOLDER] [--smi PROGRAM]

Two runs: one that keeps the GPU busy, and one that waits for images most of the time.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tools.benchmarks import json_lines
from tools.benchmarks.images import find_photos, repeated
from tools.benchmarks.process import REPOSITORY
from tools.benchmarks.report import write_text

_EPOCHS = 4  # the first warms up; each takes several of nvidia-smi's seconds, beside which what lies between is short
_MB = 1_048_576  # what nvidia-smi calls so
_BUSY = {"loader": "synthetic", "model.name": "resnet50", "data.batch-size": 128}
CASES = {
    "busy": {**_BUSY, "data.subset": 24_576},
    "waiting": {**_BUSY, "loader": "torchvision", "data.workers": 1, "data.subset": 1024},
}
_TINY = {
    "data.batch-size": 8,
    "data.size-px": 16,
    "data.subset": 16,
    "data.eval-size-px": 16,
    "data.eval-resize-px": 18,
}
_DRY = {"execution.precision": "fp32", "execution.threads": 1, "model.name": "cifar_resnet20", **_TINY}


def main(arguments: list[str]) -> None:
    """Train, watch and write the figures."""
    parser = argparse.ArgumentParser()
    for name in ("--work", "--out", "--source"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--smi", default="nvidia-smi")
    chosen = parser.parse_args(arguments)
    chosen.work.mkdir(parents=True, exist_ok=True)
    source = chosen.source or find_photos(chosen.work, print)
    repeated(source, 2 if chosen.device == "cpu" else 50, chosen.work / "images")
    cases = {name: _case(name, options, chosen) for name, options in CASES.items()}
    write_text(chosen.out, json.dumps({"images": source.name, "cases": cases}, indent=1))
    if silent := [name for name, one in cases.items() if not one["num_samples"]]:
        sys.exit(f"nvidia-smi dmon said nothing while these ran: {', '.join(silent)}")


def _case(name: str, options: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run, from the end of its first epoch to that of its last, and nvidia-smi's meanwhile."""
    folder = chosen.work / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    with _watched(chosen.smi) as samples:
        begun_s, ended_s, epochs = _train(name, options, chosen)
    used = [epoch["resources"] for epoch in epochs]
    shares = [one["gpu_share"] for one in used if one["gpu_share"] is not None]
    # writing weights and ending use no GPU, and our own figures are of epochs alone
    inside = [sample for sample in samples if begun_s <= sample["at_s"] <= ended_s]
    return {
        "share": sum(shares) / len(shares) if shares else None,
        "memory_bytes": used[-1]["gpu_memory_bytes"],
        "smi_share": sum(one["sm"] for one in inside) / len(inside) / 100 if inside else None,
        "smi_memory_bytes": max(one["fb"] for one in inside) * _MB if inside else None,
        "num_samples": len(inside),
        "images_per_s": [epoch["images_per_s"] for epoch in epochs],
    }


def _train(name: str, options: dict[str, Any], chosen: argparse.Namespace) -> tuple[float, float, list[dict[str, Any]]]:
    """Train to the end: when the first epoch was over and when the last, by this machine's clock; the records of all
    but the first."""
    options = {
        "name": name,
        "epochs": _EPOCHS,
        "data.path": chosen.work / "images",
        "data.eval-split": "train",
        "data.eval-subset": 16,
        "data.eval-batch-size-per-rank": 16,  # an evaluation is padded to whole batches
        "execution.device": chosen.device,
        "execution.precision": "bf16",
        "run.folder": chosen.work / "runs",
        "run.log-every-steps": 2,
        "run.checkpoint-every-epochs": 0,
        "run.best-metric": "none",
        "run.resume": "never",
        **options,
        **(_DRY if chosen.device == "cpu" else {}),
    }
    words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    metrics = chosen.work / "runs" / name / "metrics.jsonl"
    process = subprocess.Popen([sys.executable, str(REPOSITORY / "engine" / "train.py"), *words])
    over_s: list[float] = []  # when each epoch was seen to be over
    while process.poll() is None:
        time.sleep(0.05)
        over_s += [time.monotonic()] * (len(json_lines.by_kind(metrics)["epoch"]) - len(over_s))
    if process.returncode:
        sys.exit(f"training ended with status {process.returncode}")
    records = json_lines.by_kind(metrics)["epoch"]
    # the process may have ended before its last epoch was seen
    over_s += [time.monotonic()] * (len(records) - len(over_s))
    return over_s[0], over_s[-1], records[1:]


@contextmanager
def _watched(smi: str) -> Iterator[list[dict[str, float]]]:
    """What `nvidia-smi dmon` prints of the first GPU while the block lasts, a sample a second, with its time."""
    samples: list[dict[str, float]] = []
    process = subprocess.Popen([smi, "dmon", "-s", "um", "-d", "1"], stdout=subprocess.PIPE, text=True)

    def read() -> None:
        assert process.stdout is not None
        columns: list[str] = []
        for line in process.stdout:
            found = parsed(line, columns)
            if found is not None:
                samples.append({**found, "at_s": time.monotonic()})

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        process.terminate()
        process.wait()
        thread.join()


def parsed(line: str, columns: list[str]) -> dict[str, float] | None:
    """{"sm": %, "fb": MiB} of a line about the first GPU; None of other lines. The first line of the heading names the
    columns, which are kept in `columns`; the second their units."""
    words = line.replace("#", " ").split()
    if line.startswith("#"):
        if "gpu" in words and not columns:
            columns += words
        return None
    if not words or len(words) != len(columns) or words[columns.index("gpu")] != "0":
        return None
    values = dict(zip(columns, words, strict=True))
    return {name: float(values[name]) for name in ("sm", "fb")} if "-" not in (values["sm"], values["fb"]) else None


if __name__ == "__main__":
    main(sys.argv[1:])
