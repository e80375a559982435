"""The model as torch.compile's code, and that as CUDA graphs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from loaders.errors import FeedrateError

from .config import Config
from .dist import Ranks

_PASSES_TO_A_GRAPH = 3  # torch runs what it made, records it, and plays what it recorded: the fourth is like the third


def compiled(model: nn.Module, config: Config, ranks: Ranks, num_states: int) -> nn.Module:
    """Compiled for each size of images alone, and for each of `num_states` sets of parameters that are trained: so it
    takes as many compilations as there are of both together.

    Raises FeedrateError where graphs are asked for and cannot be had.
    """
    import torch._dynamo  # takes a second, and nobody else needs it

    graphs = config.execution.cuda_graphs
    if graphs and ranks.device.type != "cuda":
        raise FeedrateError(
            f"--execution.cuda-graphs is on and the device is {ranks.device.type}: graphs are CUDA's own"
        )
    if graphs and ranks.world_size > 1:
        raise FeedrateError(
            f"--execution.cuda-graphs is on with {ranks.world_size} ranks: it is for one alone, since nobody has seen"
            " gradients exchanged that lie in torch's graphs; turn it off"
        )
    schedule = config.data.train_view().size_px
    num_sizes = 1 if isinstance(schedule, int) else len(schedule)
    if config.execution.deterministic:  # or it would choose kernels, and so the order of sums, by timing them
        import torch._inductor.config

        torch._inductor.config.deterministic = True
    # where the limit is reached torch goes on uncompiled; windows compile with and without an exchange of gradients
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * num_sizes * num_states)
    mode = "reduce-overhead" if graphs else None
    return torch.compile(model, dynamic=False, mode=mode)  # type: ignore[return-value]


def warm_up_passes(config: Config) -> int:
    """How many passes with images of one size it takes until the next is like all that follow."""
    return _PASSES_TO_A_GRAPH if config.execution.cuda_graphs else 1


@contextmanager
def graphs_expected(are_wanted: bool) -> Iterator[None]:
    """Raise FeedrateError where torch skips a graph of what it compiles inside, or plays none: it then goes on without,
    and of some reasons does not even warn (torch 2.11: of all that concern a whole partition).
    """
    if not are_wanted:
        yield
        return
    skipped, played, replay = _num_skipped(), 0, torch.cuda.CUDAGraph.replay

    def counted(graph: torch.cuda.CUDAGraph) -> None:
        nonlocal played
        played += 1
        replay(graph)

    torch.cuda.CUDAGraph.replay = counted  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.cuda.CUDAGraph.replay = replay  # type: ignore[method-assign]
    if _num_skipped() > skipped or not played:
        raise FeedrateError(
            "--execution.cuda-graphs is on and torch makes none of this model, for the reason it warns of above if it"
            " names one: turn it off"
        )


def _num_skipped() -> int:
    """In this process so far."""
    return int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])


def forget_compiled() -> None:
    """Compile anew whatever is called next, as if nothing had been compiled yet."""
    import torch._dynamo  # as above

    torch._dynamo.reset()
