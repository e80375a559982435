"""Every optimizer of timm's that runs here goes on from a checkpoint with the same bits."""

import pytest
import timm.optim
from small_training import refuse_unless_it_resumes

# what apex and bitsandbytes bring is CUDA's; adahessian is refused
ELSEWHERE = {name for name in timm.optim.list_optimizers() if name.startswith(("fused", "bnb"))} | {"adahessian"}


@pytest.mark.parametrize("name", sorted({*timm.optim.list_optimizers(), "lookahead_adamw"} - ELSEWHERE))
def test_it_resumes(name):
    refuse_unless_it_resumes(f"timm/{name}")
