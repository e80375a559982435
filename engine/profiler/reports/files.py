"""The files that a profile leaves: report.json, report.html and, where there is a timeline, trace.json."""

from pathlib import Path

from ...reporting.writing import OR_ELSEWHERE, writing
from ..record import Profile
from ..record_json import write_profile
from .chrome_trace import write_trace
from .html_report import write_page


def write_reports(folder: Path, profile: Profile) -> list[Path]:
    """Write them into `folder`, which is made where it is missing; returns them. A trace of before does not stay.

    Raises FeedrateError, naming the file, where one cannot be written.
    """
    report, html, trace = (folder / name for name in ("report.json", "report.html", "trace.json"))
    with writing(report, OR_ELSEWHERE):
        write_profile(report, profile)
    with writing(html, OR_ELSEWHERE):
        write_page(html, profile)
    with writing(trace, OR_ELSEWHERE):
        trace.unlink(missing_ok=True)
        if not profile.timeline:
            return [report, html]
        write_trace(trace, profile)
    return [report, html, trace]
