"""`plot.py schedule`: the learning rate of a configuration against epochs. No data are read."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from engine.command_line import OwnOptions
from engine.config import Config
from engine.optimisation.schedule import schedule_of_run
from engine.optimisation.windows import Windows
from loaders.errors import FeedrateError
from loaders.home_folder import given_path

from .picture import save


def run(arguments: Sequence[str]) -> Path:
    """Draw what the arguments ask for; returns the file. Raises FeedrateError on bad ones."""
    own = OwnOptions()
    own.add_argument("--steps-per-epoch", type=int, default=1000, help="the schedule is drawn for (default 1000)")
    own.add_argument("--out", type=given_path, help="PNG to write (default runs/NAME/schedule.png)")
    chosen, read_config = own.split(arguments)
    if chosen.steps_per_epoch < 1:
        raise FeedrateError(f"--steps-per-epoch is {chosen.steps_per_epoch}: it must be 1 or more")
    config = read_config()
    path: Path = chosen.out or Path(config.run.folder) / config.name / "schedule.png"
    save(figure_of(config, chosen.steps_per_epoch), path)
    return path


def figure_of(config: Config, steps_per_epoch: int) -> Figure:
    """The learning rate of every step, against the epoch."""
    optim, average = config.optim, config.average
    windows = Windows(steps_per_epoch, optim.accumulate)
    schedule = schedule_of_run(optim, average, config.epochs, windows.updates_per_epoch)
    steps = range(config.epochs * steps_per_epoch)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([step / steps_per_epoch for step in steps], [schedule(windows.update_of(step)) for step in steps])
    lowered = ", before evaluations lower it" if optim.schedule == "plateau" else ""
    averaged = f", SWA's from epoch {average.swa_start_epoch} on" if "swa" in average.names() else ""
    axes.set(
        xlabel="epoch",
        ylabel="learning rate",
        title=f"{config.name}: {optim.schedule}{lowered}{averaged}",
        xlim=(0, config.epochs),
        ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    return figure
