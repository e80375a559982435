"""What is known of a check so far: kept on disk after each part, and what the report is made from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loaders.atomic import atomic_file
from loaders.errors import FeedrateError

from .part import Finding

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """How a part ended.

    status       "done", "failed" (it crashed, hung, or its results say that something is wrong), "unfinished" (ended
                 for its time: another call goes on with it), or "left out"
    note         why it is not done
    code_sha256  of the code that it ran on;  commit: the same, where it is known
    log          the end of what it printed, where it failed
    measured     the contents of its file of JSON
    """

    title: str
    status: str
    note: str = ""
    command: str = ""
    code_sha256: str = ""
    seconds: float = 0.0
    ended: str = ""
    findings: list[Finding] = field(default_factory=list)
    log: str = ""
    measured: Any = None
    commit: str = ""


@dataclass
class Record:
    """Outcomes by part, of one device. Those of other code are kept, and shown as such, until the part ran on this.

    machine  versions, commit, processor, GPUs, as `tools/benchmarks/machine.py` describes them
    """

    device: str
    machine: Mapping[str, Any]
    is_dry: bool
    parts: dict[str, Outcome] = field(default_factory=dict)

    def status(self, name: str, code_sha256: str) -> str:
        """How the part ended on this very code; "" where it has not run on it."""
        outcome = self.parts.get(name)
        return outcome.status if outcome is not None and outcome.code_sha256 == code_sha256 else ""

    def take_over(self, other: "Record", code_sha256: Mapping[str, str]) -> None:
        """Outcomes that another call kept, of the same device and of these parts, whose code has these hashes.

        Of two, that of this code counts, then the one that ended well, then that of the other call.
        """
        if (other.device, other.is_dry) != (self.device, self.is_dry):
            return
        for name, outcome in other.parts.items():
            ours = self.parts.get(name)
            if name in code_sha256 and (
                ours is None or _worth(outcome, code_sha256[name]) >= _worth(ours, code_sha256[name])
            ):
                self.parts[name] = outcome

    def leave_out(self, name: str, title: str, why: str) -> None:
        """Note that the part cannot run here, unless it has run before, on whichever code."""
        if name not in self.parts or not self.parts[name].code_sha256:
            self.parts[name] = Outcome(title, "left out", why)

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        with atomic_file(path) as file:
            file.write(json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> "Record":
        """What `write` wrote. Raises FeedrateError where it is something else."""
        try:
            content = json.loads(path.read_text())
            if content.pop("schema_version") != SCHEMA_VERSION:
                raise KeyError("schema_version")
            parts = {
                name: Outcome(**{**one, "findings": [Finding(**line) for line in one["findings"]]})
                for name, one in content.pop("parts").items()
            }
            return cls(**content, parts=parts)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FeedrateError(
                f"{path} is no report of tools/gpu_check.py: give its .json, or leave it out"
            ) from error


def _worth(outcome: Outcome, code_sha256: str) -> tuple[bool, bool]:
    return outcome.code_sha256 == code_sha256, outcome.status == "done"
