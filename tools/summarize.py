"""Say how large a model is.

python tools/summarize.py [--config NAME] [--model.name NAME] [--classes N] [--depth N] [--option value …]

A table of its layers with output shapes, parameters and multiply-adds, by torchinfo, and the totals. All options of
engine/train.py are understood, so what is shown is what a run would train. No data set is opened, no weights are
fetched.
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    if sys.flags.safe_path:
        sys.path.append(str(REPOSITORY))  # tools/ is not installed
    else:
        # Python put tools/ first, where `profile.py` hides the standard library's
        sys.path[0] = str(REPOSITORY)

from engine.safeguards.early_end import end_early

if __name__ == "__main__":
    end_early()  # the imports below take seconds

import torch
import torchinfo

from engine.command_line import OwnOptions
from engine.dist import Ranks
from engine.model import image_sizes, prepare_model
from engine.models.count import multiply_adds, num_parameters
from engine.safeguards.exit_status import exit_status
from loaders.errors import FeedrateError

_COLUMNS = ("output_size", "num_params", "mult_adds", "trainable")


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, and what else `exit_status` says."""
    return exit_status(lambda: _summarize(arguments))


def _summarize(arguments: list[str]) -> int:
    own = OwnOptions(__doc__)
    own.add_argument("--classes", type=int, default=0, help="of the data (default: the preset's, or 1000)")
    own.add_argument("--depth", type=int, default=3, help="levels of modules within modules that are shown (default 3)")
    chosen, read_config = own.split(arguments)
    for option, value, least in (("--classes", chosen.classes, 0), ("--depth", chosen.depth, 1)):
        if value < least:
            raise FeedrateError(f"{option} is {value}: it must be 1 or more")
    config = read_config()
    num_classes = chosen.classes or config.data.expected_classes or 1000
    one_rank = Ranks(0, 1, 0, 1, torch.device("cpu"))
    model = prepare_model(config, num_classes, one_rank, print, fresh=False)
    side = max(image_sizes(config).training_px)
    table = torchinfo.summary(
        model, (1, 3, side, side), depth=chosen.depth, col_names=_COLUMNS, col_width=18, verbose=0, device="cpu"
    )
    layers = table.formatting.layers_to_str(table.summary_list, table.total_params)
    print(table.formatting.header_row(), layers, sep="")
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(f"{config.model.name} with {num_classes} classes")
    print(f"parameters: {num_parameters(model):,}, of them trained: {trained:,}")
    operations = multiply_adds(model, side)
    counted = "cannot be counted" if operations is None else f"{operations:,} an image of {side} px"
    # torchinfo sees layers alone: not products within a layer, such as attention's, nor what is in no layer
    print(f"multiply-adds, products outside of layers included: {counted}")
    if (evaluated := config.data.eval_size_px) != side:
        print(f"this is training, by --data.size-px; evaluation is on images of {evaluated} px, by --data.eval-size-px")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
