"""What a loader does that none of its stages shows: waiting which these cannot have taken."""

from .record import LOADER_STAGES, UNSEEN, Profile, StageRecord

_EXPLAINED = 1 / 3  # stages that may have taken at least this share of the waiting are taken to be all there are


def unseen(waited: float, seen: float, starting: float = 0.0) -> float:
    """Of `waited`, what nobody saw; `seen` is what the loader's stages took of the time of all who work at once, in
    the same unit, and `starting` what of the waiting was for the first batches of epochs.

    Workers start and hand over, too, which no stage shows either: 0, unless most of the other waiting is more than
    that.
    """
    return waited - seen if seen < _EXPLAINED * (waited - starting) else 0.0


def unseen_stage(share: float, loaded: list[StageRecord]) -> StageRecord:
    """A row of the stage table for such a share of the loop's time."""
    names = ", ".join(stage.name for stage in loaded if stage.wall_us is not None)
    note = f"waiting that the only stages which this loader shows ({names}) cannot have taken"
    return StageRecord(UNSEEN, "loop", critical_share=share, note=note)


def why_unnamed(profile: Profile) -> str:
    """Why no stage of the loader can be called its heaviest: what it shows is little of what it does; "" else."""
    subject, told = profile.subject, profile.shown_rank
    alone_us = 1e6 * subject.world_size / profile.ceilings.loader[subject.workers].median
    if told.seen_us is None or not unseen(alone_us, told.seen_us):
        return ""
    names = [stage.name for stage in told.stages if stage.name in LOADER_STAGES and stage.wall_us is not None]
    if not names:
        return "its stages cannot be seen"
    return f"the only stages which this loader shows ({', '.join(names)}) are {told.seen_us / alone_us:.0%} of its time"
