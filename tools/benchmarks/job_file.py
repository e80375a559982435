"""What a run of a benchmark is told: written as JSON by the command, read by the process that runs it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class JobFile:
    """Plain data; those that inherit add its fields."""

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """What `write` wrote."""
        content: dict[str, Any] = json.loads(Path(path).read_text())
        return cls(**content)
