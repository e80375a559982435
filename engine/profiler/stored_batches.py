"""The stored bytes of an epoch's batches: kept in the page cache for warm turns, dropped from it for cold ones."""

import numpy as np

from loaders.memory_limit import available_memory_bytes
from loaders.page_eviction import StoredBytes, bring_in, evict, is_virtual_machine, let_go, stored_bytes
from loaders.plan import Plan
from loaders.read_ahead import Mapped
from loaders.records import Records

from ..dist import Ranks

_MEMORY_SHARE = 0.5  # of what is free: so much of the set is kept in memory for warm turns
_PROBED = 256  # samples by whose sizes the whole set's is told
_COLD = 0.9  # of the bytes must have gone to call a turn cold without a remark


class StoredBatches:
    """This rank's parts of the batches of epoch 0.

    gone_shares  of the bytes, 0-1, that had really left memory, one number an eviction
    """

    def __init__(self, records: Records, plan: Plan, ranks: Ranks) -> None:
        self._records = records
        self._plan = plan
        self._ranks = ranks
        self._kept: set[int] = set()
        self._room_bytes = _MEMORY_SHARE * (available_memory_bytes() or 0) / ranks.local_world_size
        self.gone_shares: list[float] = []
        self._reasons: set[str] = set()
        self.set_bytes = self._set_bytes()

    @property
    def are_files(self) -> bool:
        """Whether samples lie in files at all; else nothing can be kept or dropped."""
        return self.set_bytes is not None

    @property
    def num_batches(self) -> int:
        """Of an epoch."""
        return self._plan.num_batches(self._ranks.world_size)

    def keep(self, num_batches: int) -> int:
        """Have the first batches in the page cache, of `num_batches` as many as memory holds. Returns their number."""
        num_batches = min(num_batches, self.num_batches)
        if not self.are_files:
            return num_batches
        if self._room_bytes:
            each = max(1, self._stored(range(1)).num_bytes)
            num_batches = max(1, min(num_batches, int(self._room_bytes / each)))
        for number in range(num_batches):
            if number not in self._kept:
                bring_in(self._stored(range(number, number + 1)))
                self._kept.add(number)
        return num_batches

    def read_together(self, num_ahead: int) -> int:
        """Batches whose bytes a loader asks for in one go, in the order of the file: they are there at the same time.

        num_ahead  batches it makes beside the one asked for
        """
        if not isinstance(self._records, Mapped):
            return 1
        window = self._plan.window(0)
        return 2 * (num_ahead + 1) if window is None else window[1] - window[0]

    def drop(self, batches: range) -> None:
        """Have these batches dropped from the page cache, and what is in one piece with them; all ranks at once."""
        stored = self._stored(batches)
        let_go(stored)
        self._ranks.barrier()  # what one rank has mapped no other can drop
        done = evict(stored)
        self._kept.clear()
        if done.gone_share is None:
            self._reasons.add(done.reason)
        else:
            self.gone_shares.append(done.gone_share)
        self._ranks.barrier()

    def remarks(self) -> list[str]:
        """What whoever reads of cold rates must know."""
        remarks = [f"whether files left the page cache is not known: {reason}" for reason in sorted(self._reasons)]
        if self.gone_shares and min(self.gone_shares) < _COLD:
            remarks.append(
                f"only {min(self.gone_shares):.0%} of the stored bytes left the page cache: cold rates are too high"
            )
        if self.gone_shares and is_virtual_machine():
            remarks.append("a virtual machine: its host may still have held files that left the page cache here")
        return remarks

    def _stored(self, batches: range) -> StoredBytes:
        ids = [self._plan.rows(0, number, self._ranks.shard).ids for number in batches]
        stored = stored_bytes(self._records, np.concatenate(ids))
        assert stored is not None  # see `are_files`
        return stored

    def _set_bytes(self) -> int | None:
        """Of all samples that take part, told by those of some; None where no file holds them."""
        number, pool = self._plan.num_chosen, self._plan.sampling.pool
        some = np.unique(np.linspace(0, number - 1, min(_PROBED, number)).astype(np.int64))
        some = some if pool is None else pool[some]
        sizes = []
        for index in some:
            stored = stored_bytes(self._records, np.array([index]))
            if stored is None:
                return None
            sizes.append(stored.num_bytes)
        return round(sum(sizes) / len(sizes) * number)
