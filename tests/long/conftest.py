"""`make test-long`: hours of tests that can be interrupted.

Each test that passes is noted in docs/benchmarks/long/ledger.jsonl with a hash of the code it ran on and what it
measured; it is skipped while that code stays the same. The ledger is committed.
"""

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from commands import REPOSITORY
from source_imports import reached

LEDGER = REPOSITORY / "docs" / "benchmarks" / "long" / "ledger.jsonl"
# real images are not part of the project: these tests skip, with a reason, where the folder is missing
REAL_DATA = Path(os.environ.get("FEEDRATE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
UNPACKED = REPOSITORY / "data" / "long"
CODE = ("loaders", "converters", "engine", "configs")


@cache
def _code_sha256(test: Path, loader: str | None = None) -> str:
    """Of the code that a test is about: all but those rooms of the profiler which neither its file nor training
    imports, and of the loaders, which are opened by name, only its own where it is about one. Nor is this file hashed:
    it keeps the books.
    """
    profiler = REPOSITORY / "engine" / "profiler"
    sources = [path for folder in CODE for path in (REPOSITORY / folder).rglob("*.py") if profiler not in path.parents]
    if loader is not None:
        own = {"choose.py", f"{loader}_loader.py", "synthetic_loader.py"}  # the last is what a profile feeds steps with
        sources = [path for path in sources if path.parent != REPOSITORY / "loaders" or path.name in own]
    files = reached([*sources, REPOSITORY / "tools" / "convert.py", test])
    for folder in CODE:
        files |= {path for path in (REPOSITORY / folder).rglob("*") if path.suffix in (".toml", ".c", ".h")}
    digest = sha256()
    for path in sorted(files):
        digest.update(str(path.relative_to(REPOSITORY)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _code_of(item: pytest.Item) -> str:
    """Of what this test is about; a parameter may name the one loader it uses."""
    chosen = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    row = chosen.get("row")
    return _code_sha256(item.path, row.loader if row is not None else chosen.get("loader"))


def _passed_already() -> set[tuple[str, str]]:
    """Tests by their names and the code they passed on."""
    if not LEDGER.exists():
        return set()
    lines = [json.loads(line) for line in LEDGER.read_text().splitlines()]
    return {(line["test"], line["code"]) for line in lines}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    passed = _passed_already()
    for item in items:
        if "tests/long" in str(item.path):
            item.add_marker(pytest.mark.long)
            if (item.nodeid, _code_of(item)) in passed:
                item.add_marker(pytest.mark.skip(reason="passed already on this very code: see the ledger"))


@pytest.fixture(autouse=True, scope="session")
def sigterm_is_ctrl_c() -> Iterator[None]:
    """Both end what a test has started; SIGTERM alone would end the tests and leave ranks that nobody waits for."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def measured(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A test that passes is written to the ledger, with what it puts in here."""
    results: dict[str, Any] = {}
    started = datetime.now(UTC)
    yield results
    report = getattr(request.node, "call_report", None)
    if report is not None and report.passed:
        line = {
            "test": request.node.nodeid,
            "code": _code_of(request.node),
            "when": started.isoformat(timespec="seconds"),
            "seconds": round(report.duration, 1),
            "results": results,
        }
        LEDGER.parent.mkdir(parents=True, exist_ok=True)
        with open(LEDGER, "a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.fixture(scope="module")
def code_sha256(request: pytest.FixtureRequest) -> str:
    """Of the code that is tested: what it leaves on disk is not to be taken for another's."""
    return _code_sha256(request.path)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.call_report = report


@pytest.fixture(scope="session")
def unpacked() -> Callable[[str], Path]:
    """Unpack one of the archives of real images, once; give the folder."""

    def unpack(archive: str) -> Path:
        source = REAL_DATA / archive
        if not source.exists():
            pytest.skip(f"{source} is missing; FEEDRATE_TEST_DATA names the folder that holds it")
        images = UNPACKED / archive.split(".")[0]
        if not (images / ".complete").exists():
            images.mkdir(parents=True, exist_ok=True)
            with tarfile.open(source) as tar:
                tar.extractall(images, filter="data")
            (images / ".complete").touch()
        return images

    return unpack


@pytest.fixture(scope="session")
def packed_from(unpacked: Callable[[str], Path]) -> Callable[[str, str], Path]:
    """Unpack one of the archives of real images and pack it with `tools/convert.py DATASET`, once; give the folder."""

    def pack(archive: str, dataset: str) -> Path:
        images = unpacked(archive)
        out = images.with_name(f"{images.name}-packed")
        command = [sys.executable, "tools/convert.py", dataset, "--source", str(images), "--out", str(out)]
        if subprocess.run(command, cwd=REPOSITORY).returncode:  # it holds what an older version packed
            subprocess.run([*command, "--overwrite"], cwd=REPOSITORY, check=True)
        return out

    return pack
