"""What every report shows of a profile, in words and in order; how it looks is theirs."""

from dataclasses import dataclass
from typing import Literal

from ..number_text import (
    NOT_SEEN,
    bytes_text,
    interval_text,
    minutes_text,
    plain,
    rate_text,
    seconds_text,
    share_text,
    signed_share_text,
    time_text,
)
from ..record import (
    COMPUTE_STAGES,
    LOADER_STAGES,
    UNSEEN,
    Profile,
    RankRecord,
    Rate,
    StageRecord,
    Subject,
    Verdict,
    WhatIf,
)
from ..timeline import WAITING
from ..verdict_words import used_by_others

Group = Literal["data", "copy", "compute", "other", "loop"]
Fact = tuple[str, str]

WORKERS = "data.workers"


@dataclass(frozen=True)
class CeilingRow:
    """One rate. `group` is the side it belongs to; `note` says why `rate` is None."""

    label: str
    rate: Rate | None
    group: Group
    note: str = ""


def group_of(stage: str) -> Group:
    """The side a stage belongs to, or a timeline's waiting for data; what has no such name is other."""
    if stage == "copy":
        return "copy"
    if stage in (WAITING, UNSEEN, *LOADER_STAGES):
        return "data"
    return "compute" if stage in COMPUTE_STAGES else "other"


def subject_text(subject: Subject) -> str:
    """What was profiled, in a line."""
    ranks = f" × {subject.world_size} ranks" if subject.world_size > 1 else ""
    each = " a rank" if subject.world_size > 1 else ""
    return plain(
        f"{subject.model} {subject.precision}, {subject.size_px} px, batch {subject.batch_size:,} on"
        f" {subject.device}{ranks} · {subject.loader} ({subject.resize}), {subject.workers} workers{each} ·"
        f" {subject.path} {subject.split}, {subject.num_samples:,} images"
    )


def ceiling_rows(profile: Profile) -> list[CeilingRow]:
    """From what computes to what loads, and the loop at the end."""
    ceilings, subject = profile.ceilings, profile.subject
    no_cold = "files were not dropped from memory"
    rows = [
        CeilingRow("step alone", ceilings.step, "compute"),
        CeilingRow(
            "step fed by the host",
            ceilings.fed,
            "copy",
            "a CPU is not fed" if subject.device == "cpu" else "no whole batches are seen to be copied",
        ),
        CeilingRow(f"loader ({subject.workers} workers)", ceilings.loader.get(subject.workers), "data", "not measured"),
        CeilingRow("cold loader", ceilings.cold, "data", no_cold),
        CeilingRow("the loop", ceilings.loop, "loop"),
        CeilingRow("cold loop", ceilings.loop_cold, "loop", no_cold),
    ]
    if subject.world_size > 1 or ceilings.no_sync is not None:
        rows.append(CeilingRow("loop without exchange", ceilings.no_sync, "loop", "not measured"))
    return rows


def notes(profile: Profile) -> list[str]:
    """What whoever reads the rates must know."""
    others = used_by_others(profile)
    is_told = not others or others in profile.verdict.sentence
    return [*([] if is_told else [others]), *profile.ceilings.notes]


def verdict_facts(verdict: Verdict) -> list[Fact]:
    """Behind the sentence, in few words."""
    facts = [("confidence", share_text(verdict.confidence))]
    if verdict.ceiling is not None:
        facts.insert(0, ("its side's ceiling", f"{rate_text(verdict.ceiling)} img/s"))
    if verdict.margin is not None:
        facts.append(("the next ceiling is higher by", f"{verdict.margin:.2f}×"))
    if verdict.runner_up:
        facts.append(("next stage", plain(verdict.runner_up)))
    if verdict.slow_rank is not None:
        facts.append(("slow rank", str(verdict.slow_rank)))
    return facts


def seen(stages: tuple[StageRecord, ...]) -> list[StageRecord]:
    """Those of which a time or a share is known."""
    return [stage for stage in stages if stage.wall_us is not None or stage.critical_share is not None]


def unseen(stages: tuple[StageRecord, ...]) -> list[Fact]:
    """The others, those of one reason together: (names, reason)."""
    shown = {stage.name for stage in seen(stages)}
    return _by_reason([(stage.name, stage.note or "not measured") for stage in stages if stage.name not in shown])


def partly_unseen(stages: tuple[StageRecord, ...]) -> list[Fact]:
    """Reasons why some of a stage's numbers are n/a though it was seen: (names, reason)."""
    return _by_reason([(stage.name, stage.note) for stage in seen(stages) if stage.note])


def unseen_ceilings(profile: Profile) -> list[Fact]:
    """Ceilings that were not had, those of one reason together: (labels, reason)."""
    return _by_reason([(row.label, row.note) for row in ceiling_rows(profile) if row.rate is None])


def _by_reason(pairs: list[Fact]) -> list[Fact]:
    reasons: dict[str, list[str]] = {}
    for name, reason in pairs:
        reasons.setdefault(reason, []).append(name)
    return [(plain(", ".join(names)), plain(reason)) for reason, names in reasons.items()]


def queue_facts(rank: RankRecord) -> list[Fact]:
    """Of the batches that wait to be used."""
    queue = rank.queue
    mean = NOT_SEEN if queue.mean_ready is None else f"{queue.mean_ready:.1f}"
    block = [time_text(milliseconds * 1e3) for milliseconds in (queue.get_block_p50_ms, queue.get_block_p99_ms)]
    return [
        ("ready", f"{mean} of {queue.depth} on average"),
        ("empty / full", f"{share_text(queue.empty_share)} / {share_text(queue.full_share)} of the asks"),
        ("loop waited", f"{share_text(queue.get_block_share)} of its time (p50 {block[0]}, p99 {block[1]})"),
        ("workers idle", f"{share_text(queue.put_block_share)} of their time"),
        ("first batch", seconds_text(queue.first_batch_s)),
        ("of it starting workers", seconds_text(queue.worker_start_s)),
    ]


def resource_facts(rank: RankRecord) -> list[Fact]:
    """What one rank used; what a machine without a GPU cannot have is left out."""
    used = rank.resources
    shared = "" if used.shared_bytes is None else f" ({bytes_text(used.shared_bytes)} shared)"
    facts = [
        ("processors", f"{used.cpus_used:.1f} of {used.cpus_available}"),
        ("memory", f"{bytes_text(used.memory_bytes)}{shared}"),
        ("storage", f"{_mb_text(used.read_mb_per_s)}, {rate_text(used.reads_per_s)} reads/s"),
        ("storage, cold", _mb_text(used.cold_read_mb_per_s)),
    ]
    memory = (used.gpu_memory_allocated_bytes, used.gpu_memory_reserved_bytes, used.gpu_memory_peak_bytes)
    gpu = (used.copy_mb_per_s, used.device_busy_share, used.gpu_share, *memory, used.gpu_power_w)
    if any(value is not None for value in gpu):
        facts += [
            ("copied to the device", _copied_text(rank)),
            ("device busy by events", share_text(used.device_busy_share)),
            ("NVML utilisation", share_text(used.gpu_share)),
            ("GPU memory allocated / reserved / peak", " / ".join(map(bytes_text, memory))),
            ("power", NOT_SEEN if used.gpu_power_w is None else f"{used.gpu_power_w:.0f} W"),
        ]
    return facts


def rank_facts(profile: Profile) -> list[Fact]:
    """Each rank's own time an image, the slowest first; none where there is one."""
    if len(profile.ranks) < 2:
        return []
    ordered = sorted(profile.ranks, key=lambda rank: -rank.own_us)
    return [
        (f"rank {rank.rank} on {plain(rank.host)}", f"{time_text(rank.own_us)} an image, {_wait(rank)}")
        for rank in ordered
    ]


def best_first(what_if: tuple[WhatIf, ...]) -> list[WhatIf]:
    """Those tried first, then the others; in each the fastest prediction first."""
    return sorted(what_if, key=lambda row: (row.measured is None, -row.predicted))


def what_if_cells(row: WhatIf, disk_unit: str = "") -> list[str]:
    """A prediction's: the change, images a second and their interval, what was measured and the prediction's error, an
    epoch, processors, memory, the disk (with `disk_unit`, where no heading has it) and the cost."""
    tried = ("not tried", "") if row.measured is None else (rate_text(row.measured), signed_share_text(row.error))
    disk = NOT_SEEN if row.disk_mb_per_s is None else f"{rate_text(row.disk_mb_per_s)}{disk_unit}"
    cells = [plain(row.change), rate_text(row.predicted), interval_text(row.low, row.high), *tried]
    cells += [minutes_text(row.epoch_minutes), share_text(row.cpu_share), bytes_text(row.memory_bytes)]
    return [*cells, disk, rate_text(row.cost)]


def by_workers(what_if: tuple[WhatIf, ...]) -> dict[int, WhatIf]:
    """Predictions that change the number of workers and nothing else, by that number."""
    alone = [row for row in what_if if set(row.settings) == {WORKERS} and isinstance(row.settings[WORKERS], int)]
    return {row.settings[WORKERS]: row for row in sorted(alone, key=lambda row: int(row.settings[WORKERS]))}


def _wait(rank: RankRecord) -> str:
    return f"waited for data {share_text(rank.data_wait_share)}"


def _copied_text(rank: RankRecord) -> str:
    """Why it was not seen is said of the stage."""
    copy, mb_per_s = rank.stage("copy"), rank.resources.copy_mb_per_s
    if mb_per_s is None and copy is not None and copy.note:
        return f"{NOT_SEEN} ({plain(copy.note)})"
    return _mb_text(mb_per_s)


def _mb_text(mb_per_s: float | None) -> str:
    return NOT_SEEN if mb_per_s is None else f"{rate_text(mb_per_s)} MB/s"
