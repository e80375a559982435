"""Two profiles to show: one with everything in it, as two GPUs would leave it, and one of a CPU, mostly unseen."""

from dataclasses import replace

from engine.profiler.record import (
    SCHEMA_VERSION,
    Advice,
    Ceilings,
    ProcessRecord,
    Profile,
    QueueRecord,
    RankRecord,
    Rate,
    ResourceRecord,
    Span,
    StageRecord,
    Subject,
    Verdict,
    WhatIf,
)

# stage, where, wall, cpu, p50, p90, p99 (µs an image), ceiling (img/s), share of the loop
_STAGES = (
    ("read", "worker", 212.0, 31.0, 140.0, 390.0, 2310.0, 75_470.0, 0.088, ""),
    ("decode", "worker", 1043.0, 1022.0, 905.0, 1630.0, 2440.0, 15_340.0, 0.432, ""),
    ("augment", "worker", 287.0, 283.0, 281.0, 350.0, 471.0, 55_750.0, 0.119, ""),
    ("collate", "worker", 21.0, 20.5, 19.0, 26.0, 58.0, 760_000.0, 0.009, ""),
    ("hand-off", "loop", 1.4, 0.9, 1.1, 2.0, 9.5, 1_428_000.0, 0.011, ""),
    ("pin", "loop", None, None, None, None, None, None, None, "batches are made in page-locked memory"),
    ("copy", "device", 9.6, None, 9.5, 9.9, 12.0, 208_300.0, 0.004, "a copy engine's time, not a processor's"),
    ("prepare", "device", 4.8, None, 4.7, 5.0, 5.3, 416_700.0, 0.016, "a GPU's time, not a processor's"),
    ("forward", "device", 41.0, None, 40.6, 41.9, 44.8, 48_780.0, 0.097, "a GPU's time, not a processor's"),
    ("backward", "device", 79.5, None, 79.1, 80.7, 84.9, 25_160.0, 0.183, "a GPU's time, not a processor's"),
    ("sync", "device", 9.2, None, None, None, None, 217_400.0, 0.021, "a difference of two runs has no quantiles"),
    ("clip", "device", 0.9, None, 0.9, 1.0, 1.1, 2_222_000.0, 0.002, "a GPU's time, not a processor's"),
    ("optimizer", "device", 3.3, None, 3.2, 3.5, 4.0, 606_000.0, 0.008, "a GPU's time, not a processor's"),
    ("other", "loop", 2.2, 2.1, None, None, None, 909_000.0, 0.010, "what is left has no quantiles"),
)
_READY = tuple((0, 0, 1, 0, 2, 0, 0, 3, 1, 0, 0, 0, 1, 4, 2, 0)[ask % 16] for ask in range(144))


def rate(middle, half_spread=0.015):
    return Rate(tuple(middle * (1 + half_spread * offset) for offset in (-1.0, 0.35, -0.2, 1.0, 0.0)))


def slower(record, factor):
    """A rate `factor` times as high, with the same relative spread."""
    return Rate(tuple(value * factor for value in record.rounds))


def _what_if(change, settings, predicted, half, measured=None, cost=None):
    error = None if measured is None else (predicted - measured) / measured
    low, high = predicted * (1 - half), predicted * (1 + half)
    minutes = 1_281_167 / predicted / 60
    return WhatIf(change, settings, predicted, low, high, 0.71, 31_000_000_000, 2_050.0, minutes, cost, measured, error)


def _rank(number):
    processes = tuple(
        ProcessRecord(4000 + 10 * number + worker, name, cpus, 3_100_000_000, 2_050_000_000, 910_000_000, mb, 410.0)
        for worker, (name, cpus, mb) in enumerate((("rank", 7.4, 1040.0), ("logger", 0.1, 0.0)))
    )
    stages = tuple(StageRecord(*fields) for fields in _STAGES)
    return RankRecord(
        number, f"node-{number}", 126.0 + 2 * number, 0.648, stages,
        QueueRecord(4, _READY, 0.875, 0.5625, 0.0625, 0.63, 21.4, 63.0, 1.9, 0.6, "", 0.04),
        ResourceRecord(
            15.1, 16, 2_900_000_000, 910_000_000, 12.5, 33.0, 1_040.0, 2_390.0, 0.41, 0.352,
            9_400_000_000, 11_800_000_000, 10_900_000_000, 318.0, processes,
        ),
    )  # fmt: skip


def _timeline():
    spans = []
    per_stage = (
        ("copy", 2.5),
        ("prepare", 1.2),
        ("forward", 10.5),
        ("backward", 20.4),
        ("clip", 0.2),
        ("optimizer", 0.9),
    )
    for rank in range(2):
        at = 0.0
        for step in range(40, 44):
            wait = (0.043, 0.012, 0.061, 0.038)[step - 40] + 0.001 * rank
            spans.append(Span("data wait", rank, step, at, wait))
            at += wait
            for stage, milliseconds in per_stage:
                spans.append(Span(stage, rank, step, at, milliseconds / 1e3))
                at += milliseconds / 1e3
    return tuple(spans)


def full():
    """Data-bound by decoding, on two GPUs; everything that can be seen was."""
    return Profile(
        SCHEMA_VERSION,
        Subject(
            "data/imagenet-packed", "train", 1_281_167, "turbo", "area", 8, 512, 224, "resnet50", "bf16", "cuda", 2
        ),
        Ceilings(
            rate(14_480), rate(13_950), {2: rate(1_730), 4: rate(3_390), 8: rate(5_160, 0.03), 12: rate(5_610, 0.05)},
            rate(1_480, 0.09), rate(5_050, 0.02), rate(1_455, 0.07), 0.997, rate(5_140), 0.648,
            ("16 processors are shared by 2 ranks: more than 8 workers a rank share them",),
        ),
        (_rank(0), _rank(1)),
        Verdict(
            "decode", "data", 5_160.0, 2.7, 0.998, "augment", None,
            "Decode-bound: the loader's 8 workers a rank give 5,160 img/s, and the next ceiling, feeding the GPUs, is"
            " 13,950, 2.7 times as high; decoding is 43% of the loop's time.",
            (
                Advice("pack the set at 256 px (tools/convert.py --preset 256): decoding costs a quarter", 2.58),
                Advice("decode on the GPU with --loader dali", 1.9),
                Advice("12 workers a rank, where this machine has processors to spare", 1.06),
                Advice("keep the packed set in memory with --data.page-cache memory", None),
            ),
        ),
        (
            _what_if("packed at 256 px", {"data.path": "data/imagenet-256"}, 13_040, 0.06, 12_610, 1.31),
            _what_if("packed raw at 256 px", {"data.path": "data/imagenet-raw"}, 13_900, 0.04, None, 1.23),
            _what_if("loader dali", {"loader": "dali"}, 9_600, 0.12, None, 1.78),
            _what_if("12 workers", {"data.workers": 12}, 5_370, 0.05, 5_480, 3.18),
            _what_if("16 workers", {"data.workers": 16}, 5_540, 0.09, None, 3.08),
            _what_if("4 workers", {"data.workers": 4}, 3_330, 0.04, 3_350, 5.13),
            _what_if("batch of 1,024", {"data.batch_size": 1024}, 5_080, 0.03, None, 3.36),
            _what_if("storage twice as fast", {}, 5_190, 0.03, None, 3.29),
        ),
        _timeline(),
        {"seed": 0, "data": {"path": "data/imagenet-packed", "workers": 8}, "model": {"name": "resnet50"}},
        {"python": "3.13.1", "cpus": 16, "gpus": ["a GPU", "a GPU"], "commit": "0123456789ab"},
    )  # fmt: skip


def bare():
    """On one CPU with a loader that shows nothing; cold rounds, workers' sweep and predictions were not had."""
    opaque = "inside DALI's pipeline, which cannot be looked into"
    absent = "nothing is copied: the model computes where the batch is"
    stages = (
        StageRecord("read", "worker", 12.0, 11.0, None, None, None, 83_000.0, 0.01),
        *(StageRecord(name, "worker", note=opaque) for name in ("decode", "augment")),
        *(StageRecord(name, "loop", note=absent) for name in ("pin", "copy")),
        StageRecord("forward", "device", 4_100.0, 7_900.0, 4_050.0, 4_200.0, 5_000.0, 244.0, 0.33),
        StageRecord("backward", "device", 8_000.0, 15_000.0, 7_950.0, 8_200.0, 9_000.0, 125.0, 0.64),
        StageRecord("sync", "device", note="one rank has nobody to exchange gradients with"),
        StageRecord("other", "loop", 250.0, None, None, None, None, None, 0.02),
    )
    queue = QueueRecord(
        3, None, None, None, None, 0.02, 0.1, 0.4, None, None, "DALI does not tell how many batches are ready"
    )
    resources = ResourceRecord(
        1.9, 2, 900_000_000, None, None, None, None, None, None, None, None, None, None, None
    )  # fmt: skip
    one = Rate((80.5,))
    return Profile(
        SCHEMA_VERSION,
        Subject("data/photos", "train", 512, "dali", "exact", 2, 64, 224, "resnet18", "fp32", "cpu", 1),
        Ceilings(one, None, {2: Rate((1_900.0,))}, None, Rate((80.0,)), None, None, None, 0.02),
        (RankRecord(0, "here", 12_500.0, 0.02, stages, queue, resources),),
        Verdict("inconclusive", None, None, None, 0.4, "", None, "Inconclusive: the ceilings lie within the noise."),
        (),
        (),
        {},
        {},
    )


def with_subject(profile, **changes):
    """`profile` with fields of its subject changed."""
    return replace(profile, subject=replace(profile.subject, **changes))
