"""The whole way on images it makes itself: pack, train with two loaders, interrupt and go on, profile, report.

python tools/demo.py

Each step is the command a user would type, shown before it runs. Photos that exist already are used again, the demo's
own runs (runs/demo-*) are made anew.
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

from engine.safeguards.early_end import end_early, end_early_no_more

if __name__ == "__main__":
    end_early()  # the imports below take seconds

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from engine.profiler.record import Profile
from engine.profiler.record_json import read_profile
from engine.safeguards.exit_status import exit_status
from tools.benchmarks import json_lines
from tools.benchmarks.arguments import Parser
from tools.benchmarks.report import shown

DATA = Path("data/demo")
RUNS = Path("runs")
LOADERS = ("torchvision", "turbo")
NUM_TRAIN, NUM_VAL = 2_000, 500
STOP_AFTER_STEPS = 100  # in the middle of the third epoch

console = Console(highlight=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> int:
    """Run the demo; returns its exit status: 0 done, 1 a step failed, 2 unknown words, 130 interrupted."""
    return exit_status(lambda: _demonstrate(arguments), "`make demo` goes on with what is there")


def _demonstrate(arguments: Sequence[str]) -> int:
    Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(arguments)
    started = time.perf_counter()
    os.chdir(REPOSITORY)
    try:
        pack()
        for loader in LOADERS:
            train(loader, interrupt=loader == "turbo")
        for loader in LOADERS:
            profile(loader)
    except subprocess.CalledProcessError as failure:
        console.print(f"the demo stops here: that command ended with status {failure.returncode}", style="bold red")
        return 1
    report(time.perf_counter() - started)
    return 0


def pack() -> None:
    console.rule("1  Make photos and pack them, once")
    command = ["tools/convert.py", "synthetic", "--out", str(DATA), "--num-train", str(NUM_TRAIN)]
    command += ["--num-val", str(NUM_VAL)]
    try:
        run(command)
    except subprocess.CalledProcessError as failure:
        if failure.returncode != 2:
            raise
        console.print("What is there is the demo's own, of another version or damaged: it is packed anew.")
        run([*command, "--overwrite"])


def train(loader: str, interrupt: bool) -> None:
    console.rule(f"2  Train with the {loader} loader")
    shutil.rmtree(RUNS / f"demo-{loader}", ignore_errors=True)  # the demo's own, made anew each time
    command = ["engine/train.py", "--config", "demo", "--loader", loader, "--name", f"demo-{loader}"]
    if interrupt:
        interrupt_in_mid_epoch(command, RUNS / f"demo-{loader}" / "metrics.jsonl")
        console.print("Started again by the same command:")
    run(command)


def interrupt_in_mid_epoch(command: list[str], metrics: Path) -> None:
    """Start training, send SIGTERM in the middle of an epoch as a spot machine would, and wait for it to save."""
    show(command)
    process = subprocess.Popen([sys.executable, *command])
    try:
        while process.poll() is None and last_step(metrics) < STOP_AFTER_STEPS:
            time.sleep(0.02)
        console.print("Now it gets SIGTERM, as from a spot machine that is taken back:")
        process.send_signal(signal.SIGTERM)
        status = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
    if status != 128 + signal.SIGTERM:
        raise subprocess.CalledProcessError(status, command)


def last_step(metrics: Path) -> int:
    """The last training step in a metrics file, -1 before there is one."""
    return max((record.get("step", -1) for record in json_lines.read(metrics)), default=-1)


def profile(loader: str) -> None:
    console.rule(f"3  Profile with the {loader} loader: what does the run wait for?")
    name = f"demo-{loader}"
    run(["tools/profile.py", "--minutes", "0.5", "--config", "demo", "--loader", loader, "--name", name])


def run(command: list[str]) -> None:
    show(command)
    subprocess.run([sys.executable, *command], check=True)


def show(command: list[str]) -> None:
    console.print(f"$ python {shlex.join(command)}", style="bold cyan", markup=False)


def report(seconds: float) -> None:
    """What came out, for someone who has seen none of it before."""
    epochs = {loader: json_lines.by_kind(RUNS / f"demo-{loader}" / "metrics.jsonl")["epoch"] for loader in LOADERS}
    profiles = {loader: read_profile(RUNS / f"demo-{loader}/profile/report.json") for loader in LOADERS}
    console.rule("What came out")
    table = Table(show_edge=False)
    for heading in ("loader", "correct on unseen images", "training, img/s", "waiting for data"):
        table.add_column(heading, justify="left" if heading == "loader" else "right")
    for loader, records in epochs.items():
        last = records[-1]
        speed, wait = shown(last["images_per_s"], ",.0f"), shown(last["data_wait_share"], ".0%")
        table.add_row(loader, f"{last['eval_top1']:.1%}", speed, wait)
    console.print(table)
    digests = [[record["ids_sha256"] for record in records] for records in epochs.values()]
    same = all(digest == digests[0] for digest in digests)
    what = "the same samples in the same order" if same else "DIFFERENT SAMPLES, which is a bug"
    console.print(f"Both loaders delivered {what}, although one run was interrupted in mid-epoch and taken up again.")
    for loader, content in profiles.items():
        console.print(f"{loader}: {content.verdict.sentence}", markup=False)
    plot = RUNS / "demo.png"
    draw(epochs, profiles, plot)
    console.print(f"\nphotos         {DATA.with_name(f'{DATA.name}-images')}")
    console.print(f"packed set     {DATA}  (manifest.json, train.beton, val.beton)")
    console.print(f"runs           {', '.join(str(RUNS / f'demo-{loader}') for loader in LOADERS)}")
    console.print(f"plot           {plot}")
    console.print(f"All of it took {seconds:.0f} s. Next: README.md, or your own images with tools/convert.py folder.")


def draw(epochs: dict[str, list[dict[str, Any]]], profiles: dict[str, Profile], path: Path) -> None:
    """Accuracy by epoch, and what each part could reach alone."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for loader, records in epochs.items():
        left.plot(
            [record["epoch"] + 1 for record in records], [record["eval_top1"] for record in records], "o-", label=loader
        )
    left.set(xlabel="epoch", ylabel="top-1 on unseen images", ylim=(0, 1), title="Learning")
    left.legend()
    parts = ("step alone", "loader alone", "both together")
    for position, (loader, content) in enumerate(profiles.items()):
        ceilings = content.ceilings
        rates = [ceilings.step, ceilings.loader[content.subject.workers], ceilings.loop]
        medians = [rate.median for rate in rates]
        errors = [[rate.median - rate.low for rate in rates], [rate.high - rate.median for rate in rates]]
        places = [index + 0.4 * position for index in range(len(parts))]
        right.bar(places, medians, 0.38, yerr=errors, capsize=3, label=loader)
    right.set_xticks([index + 0.2 for index in range(len(parts))], parts)
    right.set(ylabel="img/s", title="What each part could do alone")
    right.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    end_early_no_more()
    sys.exit(main(sys.argv[1:]))
