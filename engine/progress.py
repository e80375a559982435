"""Where a run stands: its position, and the sums of the epoch so far."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import torch

from .dist import Ranks


@dataclass
class Progress:
    """Position and this rank's sums since the epoch began. The sums stay on the device until they are asked for.

    `ids_digest` is a chain, SHA-256 of (digest so far + the batch's ids): equal digests mean the same ids in the same
    order, and the chain can be taken up again in the middle.
    """

    device: torch.device
    epoch: int = 0
    batch: int = 0
    num_images: int = 0
    ids_digest: str = ""
    loss_sum: torch.Tensor = field(init=False)
    num_correct: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._zero()

    def record(self, ids: torch.Tensor, loss: torch.Tensor, num_correct: torch.Tensor) -> None:
        """Count one batch of int64 [B] ids, with its mean loss and its number of right answers."""
        self.batch += 1
        self.num_images += len(ids)
        self.ids_digest = sha256(self.ids_digest.encode() + ids.numpy().tobytes()).hexdigest()
        self.loss_sum += loss.double() * len(ids)
        self.num_correct += num_correct

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch += 1
        self.batch = 0
        self._zero()

    def totals(self, ranks: Ranks) -> dict[str, Any]:
        """The epoch's sums over all ranks, as they are logged."""
        counts = torch.stack(
            [self.loss_sum, self.num_correct.double(), torch.tensor(float(self.num_images)).to(self.loss_sum)]
        )
        loss_sum, num_correct, num_images = ranks.sum(counts).tolist()
        digests = ranks.gather(self.ids_digest)
        return {
            "train_loss": loss_sum / num_images,
            "train_top1": num_correct / num_images,
            "num_images": int(num_images),
            "ids_sha256": digests[0] if len(digests) == 1 else sha256("".join(digests).encode()).hexdigest(),
        }

    def state(self, ranks: Ranks) -> dict[str, Any]:
        """Plain data for a checkpoint: the position, and the sums of every rank. Every rank must call it."""
        own = {
            "num_images": self.num_images,
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

    def _zero(self) -> None:
        self.num_images = 0
        self.ids_digest = ""
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.num_correct = torch.zeros((), dtype=torch.int64, device=self.device)
