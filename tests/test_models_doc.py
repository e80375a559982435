"""docs/models.md tells the truth: its program for torchvision has the pixels and the figures of tools/evaluate.py."""

import dataclasses
import re

import numpy as np
import torch
from commands import REPOSITORY
from short_runs import ONE_RANK, run_to_end, short_config

from engine.checkpointing.finished import find_weights, read_finished
from engine.command_line import parse_config
from engine.data import open_evaluation
from engine.models.model_config import ModelConfig
from engine.optimisation.optim_config import OptimConfig
from engine.scoring import score

DOC = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")


def _silent(line):
    pass


def test_torchvisions_transforms_as_written_evaluate_as_we_do(image_folder, tmp_path, capsys):
    config = short_config(image_folder, tmp_path, epochs=2, model=ModelConfig("resnet18"))
    data = dataclasses.replace(config.data, resize="exact", size_px=32, eval_size_px=32, eval_resize_px=37)
    config = dataclasses.replace(config, data=data, optim=OptimConfig(learning_rate=0.001))
    run_to_end(config)
    folder = tmp_path / "short"
    config = parse_config(["--config", str(folder / "config.toml")])
    scored = score(config, ONE_RANK, read_finished(find_weights(folder, "last")), True, _silent)

    [program] = re.findall(r"^```python\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
    program = program.replace("runs/NAME", str(folder)).replace("data/imagenet/val", str(image_folder / "val"))
    capsys.readouterr()
    done: dict = {}
    exec(program, done)
    found = scored.evaluation
    assert capsys.readouterr().out == f"top-1 {found.top1:.2%} ({found.num_top1})\n"

    pixels = [np.asarray(done["square"](done["dataset"].loader(path))) for path, _ in done["dataset"].samples]
    opened = open_evaluation(config, ONE_RANK, _silent, lambda records: None)
    batches = list(opened.loader.epoch(0))
    ours = torch.cat([batch.images[: batch.num_valid] for batch in batches]).permute(0, 2, 3, 1).numpy()
    opened.close()
    assert np.array_equal(np.stack(pixels), ours)  # to the bit
    with torch.inference_mode():
        scores = done["model"](torch.stack([image for image, _ in done["dataset"]])).softmax(1)
    taken_for = [answer.prediction.predicted for answer in scored.answers]
    assert scores.argmax(1).tolist() == taken_for and len(set(taken_for)) > 1
    probabilities = torch.tensor([answer.prediction.probability for answer in scored.answers])
    assert torch.allclose(scores.max(1).values, probabilities, atol=1e-4)
