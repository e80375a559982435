"""Every shipped preset: it parses, says what it must, its model takes its images, and the cheap ones train."""

import copy
import dataclasses
import re

import pytest
import torch
from short_runs import ONE_RANK, run_to_end
from torch import nn

from converters.options import parse, settings_of
from engine.augment import Normalize
from engine.command_line import PRESETS, load_preset
from engine.model import image_sizes, prepare_model
from engine.models.blur_pool import _Blurs
from engine.models.cifar_fast import CifarFast
from engine.optimisation.optim import build_optimizer
from engine.optimisation.schedule import build_schedule
from engine.step import TrainStep
from loaders.errors import FeedrateError
from loaders.records import ChannelStatistics

NAMES = sorted(path.stem for path in PRESETS.glob("*.toml"))
# of a second or two for a step of a CPU, sizes and all
CHEAP = ("cifar10_resnet20", "cifar10_resnet32", "cifar10_fast", "demo", "imagenette_64")


def _header(name):
    lines = (PRESETS / f"{name}.toml").read_text().split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in lines), name
    return "\n".join(lines)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_states_its_command_hardware_and_result(name):
    header = _header(name)
    for word in ("command", "hardware", "result"):
        assert re.search(rf"^# {word}  ", header, re.MULTILINE), word
    assert f"--config {name}\n" in header + "\n" or f"--config {name} " in header or name == "demo"
    assert re.search(r"\d %|not known|see ", header.split("# result")[1])


def test_a_preset_trains_on_what_its_command_packs_and_no_other_command_packs_otherwise_to_there():
    packed: dict[str, set[str]] = {}
    for name in NAMES:
        for words in re.findall(r"^#.* python tools/convert\.py (.+)$", _header(name), re.MULTILINE):
            chosen = parse(words.split(), "")
            assert str(chosen.out) in (path := load_preset(name).data.path, f"{path}-packed"), name
            packed.setdefault(str(chosen.out), set()).add(repr(settings_of(chosen)))
    assert {"data/imagenet-packed", "data/imagenet-500", "data/imagenet-400", "data/imagenet-256"} <= packed.keys()
    assert all(len(settings) == 1 for settings in packed.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_called_by_its_file_and_its_model_takes_its_images(name):
    config = load_preset(name)
    assert config.name == name
    # no weights are fetched, none are drawn: shapes alone
    with torch.device("meta"):
        model = prepare_model(config, 10, ONE_RANK, lambda text: None, fresh=False)
    assert model.training
    sizes = image_sizes(config)
    assert all(16 <= side <= 512 for side in (*sizes.training_px, sizes.evaluation_px))


@pytest.mark.parametrize("name", CHEAP)
def test_a_cheap_preset_trains_a_step_on_generated_images(image_folder, tmp_path, name):
    config = load_preset(name)
    data = dataclasses.replace(
        config.data, path=str(image_folder), expected_classes=3, batch_size=32, eval_batch_size_per_rank=32, workers=1
    )
    config = dataclasses.replace(
        config,
        epochs=1,
        loader="turbo",
        data=data,
        execution=dataclasses.replace(config.execution, device="cpu", threads=1),
        run=dataclasses.replace(config.run, folder=str(tmp_path)),
    )
    outcome = run_to_end(config)
    assert outcome["position"] == [1, 0]
    (epoch,) = [line for line in outcome["metrics"] if line["kind"] == "epoch"]
    assert epoch["train_loss"] > 0


# notes of FFCV's recipe: epochs, and the epochs from which and until which images grow
_RAMPS = {16: (11, 13), 24: (17, 20), 32: (23, 27), 40: (29, 34), 56: (41, 48), 88: (65, 76)}


@pytest.mark.parametrize("epochs", _RAMPS)
@pytest.mark.parametrize(
    ("model", "batch", "peak", "weight_decay"), [("resnet50", 4096, 1.7, 1e-4), ("resnet18", 1024, 0.5, 5e-5)]
)
def test_ffcvs_ladder_is_ffcvs(model, batch, peak, weight_decay, epochs):
    config = load_preset(f"ffcv_{model}" + ("" if epochs == 88 else f"_{epochs}"))
    assert (config.epochs, config.data.batch_size, config.model.name) == (epochs, batch, model)
    optim = config.optim
    assert (optim.name, optim.momentum, optim.nesterov, optim.weight_decay) == ("sgd", 0.9, False, weight_decay)
    assert (optim.label_smoothing, optim.clip_norm, config.execution.precision) == (0.1, 0, "fp16")
    assert config.execution.channels_last and config.data.eval_flip

    steps = 1_281_167 // batch
    rate = build_schedule(optim, epochs, steps)
    for step in (0, 1, steps, 2 * steps - 1, 2 * steps, 3 * steps + 7, epochs * steps // 2, epochs * steps - 1):
        epoch = step / steps
        rising = peak * (1e-4 + (1 - 1e-4) * epoch / 2)
        assert rate(step) == pytest.approx(rising if epoch <= 2 else peak * (epochs - epoch) / (epochs - 2), rel=1e-9)

    view = config.data.train_view()
    first, last = _RAMPS[epochs]
    for epoch in range(epochs):
        share = min(1, max(0, (epoch - first) / (last - first)))
        assert view.size_at(epoch) == round((160 + 32 * share) / 32) * 32
    assert (view.crop.scale, view.crop.ratio, view.flip_probability) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    evaluated = config.data.eval_view()
    assert (evaluated.size_px, evaluated.crop.crop_px, evaluated.crop.resize_px) == (256, 224, 256)


def test_ffcvs_models_are_blurred_in_six_places():
    with torch.device("meta"):
        model = prepare_model(load_preset("ffcv_resnet50_16"), 1000, ONE_RANK, lambda text: None)
    assert sum(isinstance(module, _Blurs) for module in model.modules()) == 6


def _write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return str(folder / "mine.toml")


def test_a_preset_extends_another_table_by_table(tmp_path):
    base = "epochs = 9\n[data]\nbatch_size = 64\nsize_px = 48\n[optim]\nlearning_rate = 2"
    mine = 'extends = "base"\nepochs = 4\n[data]\nbatch_size = 32'
    config = load_preset(_write(tmp_path, base=base, mine=mine))
    assert (config.name, config.epochs) == ("mine", 4)
    assert (config.data.batch_size, config.data.size_px, config.optim.learning_rate) == (32, 48, 2.0)


def test_a_preset_extends_one_of_ours_and_chains_do(tmp_path):
    middle = 'extends = "cifar10_resnet20"\nepochs = 7'
    config = load_preset(_write(tmp_path, middle=middle, mine='extends = "middle"\n[data]\nbatch_size = 16'))
    assert (config.model.name, config.epochs, config.data.batch_size) == ("cifar_resnet20", 7, 16)
    assert config.data.padding_px == 4


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"mine": 'extends = "cifar10_resnet2"'}, "no preset 'cifar10_resnet2': did you mean cifar10_resnet"),
        ({"mine": 'extends = "other"', "other": 'extends = "mine"'}, "in a circle: mine extends other extends mine"),
        ({"mine": "extends = 3"}, "extends is 3: it must be the name of one preset"),
        ({"mine": 'extends = "other"', "other": "epoch = 3"}, "other.toml: unknown key 'epoch'"),
        ({"mine": 'extends = "other"', "other": "epochs ="}, "other.toml is not valid TOML"),
    ],
)
def test_an_extension_that_cannot_be_gives_one_sentence(tmp_path, texts, message):
    with pytest.raises(FeedrateError) as error:
        load_preset(_write(tmp_path, **texts))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_page_of_models_lists_every_preset():
    page = (PRESETS.parent / "docs" / "models.md").read_text()
    for name in NAMES:
        listed = re.sub(r"^(ffcv_.*)_[0-9]+$", r"\1", name).replace("cifar100_", "cifar10_")
        assert f"`{listed}`" in page, name


def test_cifar10_fasts_updates_are_those_of_airbench94s_optimizer():
    """As Jordan writes it (airbench 0.1.8): losses are summed, and no rate is in the decay."""
    config = load_preset("cifar10_fast")
    scale = 1024 * (1 + 1 / (1 - 0.85))
    rate, decay = 11.5 / scale, 0.0153 * config.data.batch_size / scale
    torch.manual_seed(0)
    ours = CifarFast(10)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-1, 1)  # zeros would not show whether they decay
    theirs = copy.deepcopy(ours).train()
    trained = [(name, parameter) for name, parameter in theirs.named_parameters() if parameter.requires_grad]
    norms, others = ([p for name, p in trained if ("norm" in name) == of_norm] for of_norm in (True, False))
    groups = [
        {"params": norms, "lr": 64 * rate, "weight_decay": decay / (64 * rate)},
        {"params": others, "lr": rate, "weight_decay": decay / rate},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.85, nesterov=True)

    normalize = Normalize(ChannelStatistics((125.0,) * 3, (62.0,) * 3, "this test"), ONE_RANK.device, True)
    peak = config.optim.learning_rate
    step = TrainStep(ours, build_optimizer(config.optim, ours), lambda update: peak, normalize, config, ONE_RANK)
    images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(24) % 10
    before = copy.deepcopy(dict(theirs.named_parameters()))
    for number in range(3):
        step(images, labels, torch.arange(24), number)
        loss = nn.functional.cross_entropy(theirs(normalize(images)), labels, label_smoothing=0.2)
        optimizer.zero_grad()
        (loss * config.data.batch_size).backward()
        optimizer.step()
    for name, parameter in trained:
        moved = parameter - before[name]
        alike = torch.isclose(dict(ours.named_parameters())[name] - before[name], moved, rtol=0.02, atol=2e-3)
        # sums in another order, as more threads make them, grow: norms divide by next to nothing, and biases are fast
        assert alike.float().mean() > 0.98, name
