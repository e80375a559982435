"""What `bench.py accuracy` found, for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..report import row, shown, slower_text


def page(measured: Mapping[str, Any], picture: str) -> str:
    """The page, with `picture` in it."""
    settings = measured["settings"]
    lines = [
        f"# Accuracy of `{settings['config']}` by loader and seed",
        "",
        *_about(measured),
        f"{settings['model']}, {settings['precision']}, {settings['num_epochs']} epochs of"
        f" {settings['num_images']:,} images of `{settings['data']}`, evaluated on {settings['num_evaluated']:,};"
        f" threads of torch a run: {settings['threads']}, workers of the loader: {settings['workers']}. Accuracies"
        " and losses are the last epoch's; img/s and data-wait are medians over the epochs; processor is the share of"
        " all cores, and memory of all processes, in the last epoch. Runs may have shared the machine with others:"
        " img/s says how these runs went, not which loader is faster.",
        "",
        f"![top-1 and loss over epochs]({picture})",
        "",
        *_runs(measured["runs"]),
        "",
        "## Over seeds",
        "",
        *_loaders(measured["loaders"]),
        "",
        "## Do the loaders agree?",
        "",
        *_agreement(measured),
    ]
    if measured["skipped"]:
        lines += ["", *(f"`{name}` was skipped: {why}  " for name, why in measured["skipped"].items())]
    return "\n".join(lines).rstrip() + "\n"


def _about(measured: Mapping[str, Any]) -> list[str]:
    """By which command, and what the runs ran on: not the same as what writes this."""
    machine = measured["machine"]
    return [
        f"`{machine['command']}`, {measured['date']}, written by commit `{machine['commit']}` on {machine['cpus']}"
        f" cores ({machine['processor']}), {machine['memory_gb']:g} GB. {_commits(measured['commits'])}"
        f" {_versions(measured['runs'])} {_load(measured['runs'])} All epochs are in the .json beside this."
        f"{slower_text(machine)}",
        "",
    ]


def _commits(commits: Mapping[str, Sequence[str]]) -> str:
    if len(commits) == 1:
        return f"All runs were made on commit `{next(iter(commits))}`."
    made = "; ".join(f"`{commit}` ({', '.join(names)})" for commit, names in commits.items())
    return f"**The runs were made on different commits**: {made}."


def _versions(runs: Sequence[Mapping[str, Any]]) -> str:
    """Of the runs. What only some of them had is said."""
    found: dict[str, list[str]] = {}
    for run in runs:
        environment = run["environment"]
        names = {"Python": environment["python"], **environment["versions"]}
        shown = [f"{name} {version}" for name, version in names.items()]
        gpus = ", ".join(environment["gpus"]) or "no GPU"
        found.setdefault(f"{', '.join(shown)}; {environment['cpus']} cores, {gpus}", []).append(run["name"])
    if len(found) == 1:
        return f"With {next(iter(found))}."
    return "**With different versions or machines**: " + "; ".join(f"{a} ({', '.join(b)})" for a, b in found.items())


def _load(runs: Sequence[Mapping[str, Any]]) -> str:
    """Of the machine before each run, where the command made it."""
    known = [run["load_1_min"] for run in runs if run["load_1_min"] is not None]
    if not known:
        return "What else the machine did is not known: another command made the runs."
    unknown = f", of {len(runs) - len(known)} runs not known" if len(known) < len(runs) else ""
    return f"Load of the machine before a run: {min(known):.2f} to {max(known):.2f}{unknown}."


def _runs(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    columns = (
        "seed",
        "loader",
        "top-1",
        "top-5",
        "train loss",
        "img/s",
        "data-wait",
        "training",
        "processor",
        "memory",
    )
    yield row(*columns)
    yield row(*["---"] * len(columns))
    for run in sorted(runs, key=lambda run: run["seed"]):  # loaders stay in their order
        used = run["resources"]
        yield row(
            str(run["seed"]),
            f"`{run['loader']}`",
            f"{run['eval_top1']:.2%}",
            f"{run['eval_top5']:.2%}",
            f"{run['train_loss']:.6f}",
            shown(run["images_per_s"], ",.0f"),
            shown(run["data_wait_share"], ".1%"),
            f"{run['train_s'] / 60:,.1f} min",
            shown(used["cpu_share"], ".0%") + ("" if used["gpu_share"] is None else f", GPU {used['gpu_share']:.0%}"),
            f"{used['memory_bytes'] / 1e6:,.0f} MB"
            + ("" if used["gpu_memory_bytes"] is None else f", GPU {used['gpu_memory_bytes'] / 1e6:,.0f} MB"),
        )


def _loaders(loaders: Mapping[str, Any]) -> Iterator[str]:
    yield row("loader", "n", "top-1: mean ± deviation", "lowest … highest", "top-5", "train loss")
    yield row(*["---"] * 6)
    for loader, of in loaders.items():
        top1 = of["eval_top1"]
        loss = of["train_loss"]
        yield row(
            f"`{loader}`",
            str(top1["n"]),
            _mean_text(top1),
            f"{top1['lowest']:.2%} … {top1['highest']:.2%}",
            _mean_text(of["eval_top5"]),
            f"{loss['mean']:.4f}" + ("" if loss["deviation"] is None else f" ± {loss['deviation']:.4f}"),
        )


def _mean_text(of: Mapping[str, Any]) -> str:
    return f"{of['mean']:.2%}" + ("" if of["deviation"] is None else f" ± {of['deviation']:.2%}")


def _agreement(measured: Mapping[str, Any]) -> Iterator[str]:
    yield row("seed", "largest difference in top-1", "the same ids, in the same order", "the same results, to the bit")
    yield row(*["---"] * 4)
    for seed, found in measured["seeds"].items():
        difference = "" if found["difference"] is None else _points(found["difference"])
        yield row(str(seed), difference, _groups(found["same_ids"]), _groups(found["same_results"]))
    yield ""
    yield "Results are every figure of every epoch but those of a clock, and the weights, where kept, at the end."
    yield ""
    yield verdict(measured["agreement"])


def verdict(found: Mapping[str, Any]) -> str:
    """The comparison in words."""
    if found["largest_of_a_seed"] is None:
        return "There is one loader only: nothing to compare."
    told = (
        f"Two loaders differ by {_points(found['largest_of_a_seed'])} at most on the same seed, and by"
        f" {_points(found['largest_of_means'])} at most in their means over seeds."
    )
    if found["is_within"] is None:
        return f"{told} There is one seed only, so nothing says how far chance alone reaches."
    compared = "no more" if found["is_within"] else "**more**"
    return (
        f"{told} Two seeds of one loader differ by up to {_points(found['largest_over_seeds'])} (standard deviation"
        f" over seeds {_points(found['deviation'])}): the loaders' means differ by {compared} than seeds do."
    )


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"


def _groups(groups: Sequence[Sequence[str]]) -> str:
    """Who is equal to whom."""
    if len(groups) == 1:
        return "all" if len(groups[0]) > 1 else "one loader only"
    equal = [" = ".join(f"`{name}`" for name in names) for names in groups if len(names) > 1]
    return "; ".join(equal) + (", no others" if equal else "none")
