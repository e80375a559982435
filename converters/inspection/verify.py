"""Is a packed folder what its manifest says? Reads everything again: every byte, every table, every image."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from loaders.manifest import MANIFEST_NAME, WORK_FOLDER, Manifest, fault_of, parse_manifest
from loaders.soundness import PACK_AGAIN

from ..channel_statistics import are_possible, statistics_digest
from ..out_folder import BAD_SAMPLES_NAME, NAMED_LIKE_OWN, require_packed
from ..packing import FORMATS, classes_digest
from ..progress import Phase, silent_phase
from .checksums import Checksums
from .split_check import SplitCheck


@dataclass(frozen=True)
class Verified:
    """How many samples were compared and bytes hashed, and what is wrong: one sentence each, in a fixed order.

    looked_inside  False: for what is wrong with the files as a whole, no image was looked at
    remarks        what could not be compared here, and why
    """

    num_samples: int
    num_bytes: int
    findings: list[str]
    looked_inside: bool = True
    remarks: list[str] = field(default_factory=list)


def verify(folder: Path, num_workers: int, phase: Phase = silent_phase) -> Verified:
    """Compare all that a packed folder holds with its manifest and with itself.

    Every file's size and SHA-256; the names of the classes by theirs; the tables, the formats and the indices with
    each other; every image, decoded, with the size and the label that are told of it; the same sample in several
    formats; the channel statistics by their SHA-256, and with the pixels where those that they were counted from
    are known. A folder in which files are missing or have another size is told so, and no image of it is looked at.
    `num_workers` 0 does all in this process. Raises FeedrateError where there is no manifest to compare with, or a
    worker died.
    """
    require_packed(folder)
    manifest = parse_manifest(folder)
    findings = [*_manifest_findings(manifest), *_leftovers(folder, manifest)]
    faults = [(file, fault_of(folder, file)) for file in manifest.files()]
    whole = {file.name: file for file, fault in faults if fault is None}
    unsound = [fault for _, fault in faults if fault is not None]
    findings += unsound
    num_samples = 0
    sizes = {folder / name: file.num_bytes for name, file in whole.items()}
    with Checksums(sizes) as checksums:  # in the background: one thread a file, and a set may be one file
        wrong_inside: list[str] = []
        remarks: list[str] = []
        if not unsound:
            for split in manifest.splits:
                check = SplitCheck(folder, split, manifest)
                check.run(num_workers, phase)
                wrong_inside += check.findings
                remarks += check.remarks
                num_samples += check.num_compared
        total = sum(split.num_samples for split in manifest.splits.values())
        with phase("checksums", total, checksums.num_done(total)) as advance:
            digests = checksums.wait(advance, total)
    for name, file in whole.items():
        digest = digests[folder / name]
        if isinstance(digest, OSError):
            findings.append(f"{folder / name} cannot be read ({digest.strerror}): check its permissions and its disk")
        elif digest != file.sha256:
            findings.append(
                f"{folder / name} has SHA-256 {digest[:12]}… and {MANIFEST_NAME} says {file.sha256[:12]}…:"
                f" its bytes are not those that were packed, copy it or {PACK_AGAIN}"
            )
    findings += wrong_inside
    num_bytes, findings, remarks = sum(sizes.values()), list(dict.fromkeys(findings)), list(dict.fromkeys(remarks))
    return Verified(num_samples, num_bytes, findings, not unsound, remarks)


def _manifest_findings(manifest: Manifest) -> Iterator[str]:
    """What the manifest alone shows to be wrong."""
    for name, num in Counter(file.name for file in manifest.files()).items():
        if num > 1:
            yield f"{MANIFEST_NAME} names {name} {num} times: {PACK_AGAIN}"
    for name, split in manifest.splits.items():
        if sum(split.samples_per_class) != split.num_samples:
            yield (
                f"{MANIFEST_NAME} counts {sum(split.samples_per_class):,} samples in the classes of '{name}' and"
                f" {split.num_samples:,} in all: {PACK_AGAIN}"
            )
        for unknown in sorted({*split.formats} - {*FORMATS}):
            yield f"{MANIFEST_NAME} has '{name}' as '{unknown}', known are {', '.join(FORMATS)}: {PACK_AGAIN}"
    task = manifest.source.get("task")
    packed_as = task.get("classes") if isinstance(task, dict) else None  # sets that others described have no task
    if packed_as is not None and packed_as != classes_digest(manifest.classes, manifest.class_names):
        yield (
            f"{MANIFEST_NAME} names other classes, or in another order, than were packed (their SHA-256 is not the one"
            f" in its source's task): undo that, or {PACK_AGAIN}"
        )
    if not are_possible(manifest.statistics):
        yield f"{MANIFEST_NAME} has statistics that no pixels have, which are 0 … 255: {PACK_AGAIN}"
    if manifest.source.get("statistics_sha256") not in (None, statistics_digest(manifest.statistics)):
        yield (
            f"{MANIFEST_NAME} has statistics that are not those that packing counted (their SHA-256 is not the one in"
            f" its source): undo that, or {PACK_AGAIN}"
        )


def _leftovers(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Files named like ours that the manifest does not know, and a list of bad samples that does not fit it."""
    known = {file.name for file in manifest.files()}
    for path in sorted(folder.iterdir()):
        if path.name == WORK_FOLDER:
            yield f"{path} is left of a packing that did not end: give its command again, or remove it"
        elif NAMED_LIKE_OWN.fullmatch(path.name) and path.name not in known:
            yield f"{path} is named like a packed file and is not in {MANIFEST_NAME}: remove it"
    listed: Counter[str] = Counter()
    if (folder / BAD_SAMPLES_NAME).exists():
        try:
            lines = (folder / BAD_SAMPLES_NAME).read_text().splitlines()
            listed.update(json.loads(line)["split"] for line in lines)
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield f"{folder / BAD_SAMPLES_NAME} is not a list of bad samples ({error!r:.80}): {PACK_AGAIN}"
            return
    for name, split in manifest.splits.items():
        if listed[name] != split.num_bad:
            yield (
                f"{folder / BAD_SAMPLES_NAME} lists {listed[name]:,} samples of '{name}' and {MANIFEST_NAME} counts"
                f" {split.num_bad:,}: {PACK_AGAIN}"
            )
