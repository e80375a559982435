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

    status       "done", "failed" (it crashed, hung, or its results say that something is wrong), or "left out"
    note         why it failed or was left out; "" where it is done
    code_sha256  of the code that it ran on
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


@dataclass
class Record:
    """Outcomes by part, of one device.

    machine  versions, commit, processor, GPUs, as `tools/benchmarks/machine.py` describes them
    """

    device: str
    machine: Mapping[str, Any]
    is_dry: bool
    parts: dict[str, Outcome] = field(default_factory=dict)

    def is_done(self, name: str, code_sha256: str) -> bool:
        """Whether the part ended well on this very code."""
        outcome = self.parts.get(name)
        return outcome is not None and outcome.status == "done" and outcome.code_sha256 == code_sha256

    def take_over(self, other: "Record") -> None:
        """Outcomes that another call kept, of the same device; of parts that ended well here already, ours stay."""
        if (other.device, other.is_dry) == (self.device, self.is_dry):
            ours = {name: outcome for name, outcome in self.parts.items() if outcome.status == "done"}
            self.parts = {**self.parts, **other.parts, **ours}

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
