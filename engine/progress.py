"""Where a run stands: its position, and the sums of the epoch so far."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

import torch

from loaders.api import Substitution
from loaders.errors import FeedrateError

from .dist import Ranks


@dataclass
class Progress:
    """Position and this rank's sums since the epoch began. The sums stay on the device until they are asked for.

    `ids_digest` is a chain, SHA-256 of (digest so far + the batch's ids): equal digests mean the same ids in the same
    order, and the chain can be taken up again in the middle. `substitutions` holds one entry for each sample that could
    not be delivered, the first; `num_substituted` counts every row in which another stood in.
    """

    device: torch.device
    epoch: int = 0
    batch: int = 0
    num_images: int = 0
    ids_digest: str = ""
    num_substituted: int = 0
    substitutions: dict[int, Substitution] = field(default_factory=dict)
    loss_sum: torch.Tensor = field(init=False)
    num_correct: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._zero()

    def record(
        self,
        ids: torch.Tensor,
        loss: torch.Tensor,
        num_correct: torch.Tensor,
        substitutions: tuple[Substitution, ...] = (),
    ) -> None:
        """Count one batch of int64 [B] ids, with its mean loss and its number of right answers."""
        self.batch += 1
        self.num_images += len(ids)
        self.ids_digest = sha256(self.ids_digest.encode() + ids.numpy().tobytes()).hexdigest()
        self.loss_sum += loss.double() * len(ids)
        self.num_correct += num_correct
        self.num_substituted += len(substitutions)
        self._note(substitutions)

    def refuse_too_many_substitutes(self, max_bad: int) -> None:
        """A loader counts from where its epoch was taken up; this counts from where it began."""
        if self.num_substituted > max_bad:
            *_, last = self.substitutions.values()
            raise FeedrateError(
                f"{self.num_substituted} samples of this epoch could not be delivered, more than the {max_bad} that"
                f" --data.max-bad allows; the last that was new: {last.reason}"
            )

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch += 1
        self.batch = 0
        self._zero()

    def totals(self, ranks: Ranks, beside: dict[str, Any] | None = None) -> dict[str, Any]:
        """The epoch's sums over all ranks, as they are logged. Every rank must call it.

        beside  what else each rank tells, plain data by name: of each the list of all ranks' is in the answer
        """
        on_host = torch.tensor([self.num_images, self.num_substituted]).to(self.loss_sum)
        counts = torch.cat([torch.stack([self.loss_sum, self.num_correct.double()]), on_host])
        loss_sum, num_correct, num_images, num_substituted = ranks.sum(counts).tolist()
        told = ranks.gather((self.ids_digest, beside or {}))
        digests = [digest for digest, _ in told]
        return {
            "train_loss": loss_sum / num_images,
            "train_top1": num_correct / num_images,
            "num_images": int(num_images),
            "num_substituted": int(num_substituted),
            "ids_sha256": digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest(),
            **{name: [of_rank[name] for _, of_rank in told] for name in beside or {}},
        }

    def all_substitutions(self, ranks: Ranks) -> list[Substitution]:
        """Those of all ranks in the epoch so far, one for each bad sample, by its id. Every rank must call it."""
        gathered = ranks.gather(list(self.substitutions.values()))
        first = {entry.bad_id: entry for of_rank in reversed(gathered) for entry in of_rank}
        return [first[bad_id] for bad_id in sorted(first)]

    def state(self, ranks: Ranks) -> dict[str, Any]:
        """Plain data for a checkpoint: the position, and the sums of every rank. Every rank must call it."""
        own = {
            "num_images": self.num_images,
            "num_substituted": self.num_substituted,
            "substitutions": [asdict(entry) for entry in self.substitutions.values()],
            "ids_digest": self.ids_digest,
            "loss_sum": self.loss_sum.item(),
            "num_correct": int(self.num_correct.item()),
        }
        return {"epoch": self.epoch, "batch": self.batch, "ranks": ranks.gather(own)}

    def restore(self, state: dict[str, Any], ranks: Ranks) -> None:
        """Take up what `state` stored. On another number of ranks the sums of the old ranks are shared out anew."""
        self.epoch, self.batch = state["epoch"], state["batch"]
        for number, own in enumerate(state["ranks"]):
            if number % ranks.world_size != ranks.rank:
                continue
            self.num_images += own["num_images"]
            self.loss_sum += own["loss_sum"]
            self.num_correct += own["num_correct"]
            self.ids_digest += own["ids_digest"]
            self.num_substituted += own["num_substituted"]
            self._note(Substitution(**entry) for entry in own["substitutions"])

    def _note(self, substitutions: Iterable[Substitution]) -> None:
        for entry in substitutions:
            self.substitutions.setdefault(entry.bad_id, entry)

    def _zero(self) -> None:
        self.num_images = 0
        self.num_substituted = 0
        self.substitutions = {}
        self.ids_digest = ""
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.num_correct = torch.zeros((), dtype=torch.int64, device=self.device)
