"""The report of the check, for people."""

from collections.abc import Iterator, Mapping, Sequence

from ..benchmarks.machine import DALI_PACKAGES
from ..benchmarks.report import row, slower_text
from .record import Outcome, Record

_PACKAGES = ("torch", "torchvision", "timm", *DALI_PACKAGES, "ffcv", "numpy", "simplejpeg")


def page(record: Record, no_time: Sequence[str], code_sha256: Mapping[str, str]) -> str:
    """In Markdown; `no_time` names the parts for which the time did not suffice. `code_sha256`: of each part's code as
    it is now; figures of other code are marked."""
    other = {name: _of_other_code(one, code_sha256.get(name, "")) for name, one in record.parts.items()}
    lines = [
        f"# Checked on {record.device}",
        "",
        _about(record),
        "",
        *(
            ["**A dry run with tiny sizes: it says that everything runs; its figures mean nothing.**", ""]
            * record.is_dry
        ),
        "Each part is a process of its own. Figures are medians, with the lowest and the highest, and n; what"
        " they are of stands in the .json beside this, with every round.",
        "",
        row("part", "ended", "took", "hash of its code", "why"),
        row(*["---"] * 5),
        *(_line(name, outcome, other[name]) for name, outcome in record.parts.items()),
        *(row(f"`{name}`", "no time", "", "", "") for name in no_time if name not in record.parts),
    ]
    for name, outcome in record.parts.items():
        if outcome.findings:
            title = f"{outcome.title} ({other[name]})" if other[name] else outcome.title
            lines += ["", f"## {title}", "", *_findings(outcome), "", f"`{outcome.command}`"]
    return "\n".join(lines) + "\n"


def _about(record: Record) -> str:
    machine = record.machine
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in _PACKAGES if name in machine["versions"])
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    driver = f" (driver, power limit and highest clock: {machine['driver']})" if machine.get("driver") else ""
    return (
        f"`{machine['command']}`, {machine['date']}, commit `{machine['commit'] or 'not known'}`."
        f" {gpus}{driver}, {machine['cpus']} cores ({machine['processor']}),"
        f" {machine['memory_gb']:g} GB, Python {machine['python']}, CUDA {machine['torch_cuda']}; {versions}."
        f"{slower_text(machine)}"
    )


def _of_other_code(outcome: Outcome, code_sha256: str) -> str:
    """Which, or "" where it is of this."""
    if outcome.code_sha256 in ("", code_sha256):
        return ""
    return "of other code" + (f", commit `{outcome.commit}`" if outcome.commit else "")


def _line(name: str, outcome: Outcome, other: str) -> str:
    took = f"{outcome.seconds / 60:.1f} min" if outcome.seconds else ""
    why = "; ".join(filter(None, (other, outcome.note)))
    return row(f"`{name}`", outcome.status, took, f"`{outcome.code_sha256}`" if outcome.code_sha256 else "", why)


def _findings(outcome: Outcome) -> Iterator[str]:
    yield row("what", "found")
    yield row("---", "---")
    for finding in outcome.findings:
        yield row(finding.what.replace("|", "\\|"), finding.figure.replace("|", "\\|"))
