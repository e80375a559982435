import pickle
import urllib.error

import pytest
import torch
from drawn_models import build_model
from safetensors.torch import save_file
from short_runs import ONE_RANK
from torch import nn

from engine.config import Config, DataConfig
from engine.model import prepare_model
from engine.models.architectures import new_model
from engine.models.image_sizes import ImageSizes
from engine.models.model_config import ModelConfig
from engine.models.weight_files import read_weights
from engine.models.weights import published_weights, take_over
from loaders.errors import FeedrateError


def _config(side=32, **model):
    data = DataConfig(batch_size=4, size_px=side, eval_size_px=side, eval_resize_px=side)
    return Config(seed=7, data=data, model=ModelConfig(**model))


def _said():
    lines = []
    return lines, lines.append


def _equal(one, other, names):
    return all(torch.equal(one[name], other[name]) for name in names)


@pytest.fixture
def trained():
    """A model's weights for 5 classes, with batch norms that have seen something."""
    model = build_model("cifar_resnet20", 5, seed=1)
    model(torch.randn(8, 3, 32, 32))
    return model.state_dict()


def _save(weights, path, form):
    if form == "safetensors":
        save_file(weights, path)
    else:
        wrapped = {"plain": weights, "checkpoint": {"epoch": 3, "model": weights}, "timm's": {"state_dict": weights}}
        wrapped["distributed"] = {f"module.{name}": tensor for name, tensor in weights.items()}
        wrapped["compiled"] = {"model": {f"_orig_mod.{name}": tensor for name, tensor in weights.items()}}
        torch.save(wrapped[form], path)


@pytest.mark.parametrize("form", ["safetensors", "plain", "checkpoint", "timm's", "distributed", "compiled"])
def test_weights_are_read_from_every_kind_of_file(tmp_path, trained, form):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    _save(trained, path, form)
    read = read_weights(str(path))
    assert read.keys() == trained.keys() and _equal(read, trained, trained)


def test_weights_for_as_many_classes_are_all_taken(tmp_path, trained):
    save_file(trained, tmp_path / "w.safetensors")
    lines, say = _said()
    model = prepare_model(_config(name="cifar_resnet20", weights=str(tmp_path / "w.safetensors")), 5, ONE_RANK, say)
    assert _equal(model.state_dict(), trained, trained)
    assert lines == [f"weights: {tmp_path / 'w.safetensors'}; all layers fit"]


def test_for_other_classes_the_classifier_alone_is_replaced_and_said(tmp_path, trained):
    save_file(trained, tmp_path / "w.safetensors")
    lines, say = _said()
    model = prepare_model(_config(name="cifar_resnet20", weights=str(tmp_path / "w.safetensors")), 9, ONE_RANK, say)
    state = model.state_dict()
    assert _equal(state, trained, [name for name in trained if not name.startswith("classifier")])
    drawn = build_model("cifar_resnet20", 9, seed=7).state_dict()
    assert _equal(state, drawn, ["classifier.weight", "classifier.bias"])  # from the seed alone
    assert lines[0].endswith("; replaced: classifier (9 classes instead of 5)")


def test_a_file_without_a_classifier_will_do(trained):
    model = build_model("cifar_resnet20", 5, seed=2)
    backbone = {name: tensor for name, tensor in trained.items() if not name.startswith("classifier")}
    assert take_over(model, backbone, ("classifier",), "w") == ["replaced: classifier"]
    assert _equal(model.state_dict(), backbone, backbone)


def test_auxiliary_classifiers_in_a_file_are_left_out_and_said(trained):
    model = build_model("cifar_resnet20", 5, seed=2)
    more = {**trained, "aux1.fc.weight": torch.zeros(3), "aux1.fc.bias": torch.zeros(3)}
    assert take_over(model, more, ("classifier",), "w") == ["left out: aux1"]
    assert _equal(model.state_dict(), trained, trained)


def _under(beginning, weights):
    return {f"{beginning}{name}": tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("num_classes", [5, 9])
def test_names_of_a_model_within_another_are_those_of_the_model(tmp_path, trained, num_classes):
    """As Lightning saves them, beside what its loss and a projection hold."""
    path = tmp_path / "last.ckpt"
    others = {"criterion.weight": torch.ones(5), "head.conv.weight": torch.ones(2)}
    torch.save({"state_dict": {**others, **_under("net.model.", trained)}}, path)
    lines, say = _said()
    model = prepare_model(_config(name="cifar_resnet20", weights=str(path)), num_classes, ONE_RANK, say)
    assert _equal(model.state_dict(), trained, [name for name in trained if not name.startswith("classifier")])
    assert lines[0] == f"{path}: 'net.model.', with which names begin there, is taken off; passed over: criterion, head"
    assert lines[1].endswith("all layers fit" if num_classes == 5 else "replaced: classifier (9 classes instead of 5)")


def test_a_classifier_beside_the_model_within_is_taken_with_it(tmp_path, trained):
    path = tmp_path / "probe.pt"
    classifier = {name: tensor for name, tensor in trained.items() if name.startswith("classifier")}
    others = {name: tensor for name, tensor in trained.items() if name not in classifier}
    torch.save(_under("backbone.", others) | classifier, path)
    lines, say = _said()
    model = prepare_model(_config(name="cifar_resnet20", weights=str(path)), 5, ONE_RANK, say)
    assert _equal(model.state_dict(), trained, trained)
    assert lines[0].endswith("is taken off") and lines[1].endswith("all layers fit")


def test_of_two_models_within_another_none_is_taken(tmp_path, trained):
    path = tmp_path / "moco.pth.tar"
    other = {name: tensor + 1 for name, tensor in trained.items() if not name.endswith("num_batches_tracked")}
    torch.save({"state_dict": _under("module.encoder_q.", trained) | _under("module.encoder_k.", other)}, path)
    with pytest.raises(
        FeedrateError, match="several such models, their names beginning with encoder_q. or encoder_k.:"
    ):
        prepare_model(_config(name="cifar_resnet20", weights=str(path)), 5, ONE_RANK, lambda text: None)


def test_the_same_model_under_two_names_is_one(tmp_path, trained):
    path = tmp_path / "twice.ckpt"
    torch.save(_under("model.", trained) | _under("net.", trained), path)
    lines, say = _said()
    model = prepare_model(_config(name="cifar_resnet20", weights=str(path)), 5, ONE_RANK, say)
    assert _equal(model.state_dict(), trained, trained)
    assert lines[0].endswith("'model.', with which names begin there, is taken off; passed over: net")


def test_plain_names_come_before_a_copy_behind_another(tmp_path, trained):
    path = tmp_path / "with_average.pt"
    backbone = {name: tensor for name, tensor in trained.items() if not name.startswith("classifier")}
    torch.save(backbone | _under("ema.", {name: tensor + 1 for name, tensor in trained.items()}), path)
    model = prepare_model(_config(name="cifar_resnet20", weights=str(path)), 5, ONE_RANK, lambda text: None)
    assert _equal(model.state_dict(), trained, backbone)


def test_of_averaged_weights_that_a_run_passes_over_its_log_tells(tmp_path, trained):
    path = tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": trained, "state_dict_ema": trained}, path)
    lines, say = _said()
    prepare_model(_config(name="cifar_resnet20", weights=str(path)), 5, ONE_RANK, say)
    assert lines[0].endswith(f"passed over: {path}#state_dict_ema takes them") and lines[1].endswith("all layers fit")


def _without_first(weights):
    return {name: tensor for name, tensor in weights.items() if name != "conv.weight"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: _without_first(w), "w does not fit the model: conv.weight is missing; weights must be of the same"),
        (
            lambda w: {**w, "conv.weight": torch.zeros(16, 3, 5, 5)},
            "conv.weight is 16 × 3 × 5 × 5 and must be 16 × 3 × 3",
        ),
        (lambda w: {**w, "blocks.9.conv1.weight": torch.zeros(3)}, "blocks.9.conv1.weight is unknown"),
        (lambda w: build_model("cifar_resnet32", 5, 0).state_dict(), ", and "),
    ],
)
def test_weights_of_another_model_are_refused_by_what_does_not_fit(trained, change, message):
    model = build_model("cifar_resnet20", 5, seed=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(FeedrateError) as error:
        take_over(model, change(trained), ("classifier",), "w")
    assert message in str(error.value)
    assert _equal(model.state_dict(), before, before)


class _Malice:
    def __reduce__(self):
        return print, ("this code ran",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pt", None, "there is no file"),
        (
            "weights.h5",
            b"x",
            r"not of plain tensors and data: weights are read from \.safetensors, or what",
        ),
        ("broken.safetensors", b"xxxxxxxxxxxxxxxx", "cannot be read"),
        ("broken.pt", b"", "cannot be read"),
        ("malice.pt", pickle.dumps({"model": _Malice()}), "is refused"),
    ],
)
def test_a_file_that_cannot_be_used_gives_one_sentence_and_runs_nothing(tmp_path, capsys, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FeedrateError, match=message) as error:
        read_weights(str(path))
    assert "\n" not in str(error.value)
    assert "this code ran" not in capsys.readouterr().out


def test_of_a_runs_folder_the_file_that_may_be_meant_is_named(tmp_path):
    with pytest.raises(FeedrateError, match=f"there is no file {tmp_path}$"):
        read_weights(str(tmp_path))
    (tmp_path / "weights.safetensors").write_bytes(b"")
    with pytest.raises(FeedrateError, match=f"{tmp_path}: name a file in that folder, such as {tmp_path}/weights.safe"):
        read_weights(str(tmp_path))


def test_a_torch_file_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"model": _Malice()}, tmp_path / "malice.pt")
    with pytest.raises(FeedrateError, match="could run code"):
        read_weights(str(tmp_path / "malice.pt"))
    assert "this code ran" not in capsys.readouterr().out


def test_a_file_without_weights_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(FeedrateError, match="holds no weights"):
        read_weights(str(tmp_path / "w.pt"))


def test_without_a_network_published_weights_give_one_sentence(monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(FeedrateError, match="published for resnet18 cannot be had .*a file") as error:
        published_weights("resnet18", ImageSizes((224,), 224))
    assert "\n" not in str(error.value)


def test_timms_published_weights_give_one_sentence_too(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("offline\nand more")

    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(FeedrateError, match=r"published for timm/resnet18 cannot be had \(offline\)"):
        published_weights("timm/resnet18", ImageSizes((224,), 224))


def test_our_own_models_have_no_published_weights():
    with pytest.raises(FeedrateError, match="no weights are published for cifar_fast"):
        published_weights("cifar_fast", ImageSizes((32,), 32))


def test_published_weights_of_torchvision_come_from_its_hub(monkeypatch):
    source = build_model("resnet18", 1000, seed=5).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: dict(source))
    lines, say = _said()
    model = prepare_model(_config(name="resnet18", weights="default"), 10, ONE_RANK, say)
    assert _equal(model.state_dict(), source, [name for name in source if not name.startswith("fc")])
    assert lines == ["weights: the weights published for resnet18; replaced: fc (10 classes instead of 1000)"]


def test_published_weights_of_timm_come_from_its_hub(monkeypatch):
    import timm

    real = timm.create_model
    monkeypatch.setattr("timm.create_model", lambda name, pretrained, **more: real(name, pretrained=False, **more))
    torch.manual_seed(3)
    source = real("vit_tiny_patch16_224", img_size=32).state_dict()
    torch.manual_seed(3)
    weights = published_weights("timm/vit_tiny_patch16_224", ImageSizes((32,), 32))
    assert _equal(weights, source, source)


@pytest.mark.parametrize("name", ["vit_b_16", "timm/vit_tiny_patch16_224"])
def test_position_embeddings_are_resampled_to_the_runs_size(name):
    settings = ModelConfig(name)
    trained = new_model(settings, 10, ImageSizes((64,), 64), 0).state_dict()
    position = "encoder.pos_embedding" if name == "vit_b_16" else "pos_embed"
    ramp = torch.linspace(-1, 1, 4).view(1, 4, 1, 1).expand(1, 4, 4, trained[position].shape[2])
    trained[position] = torch.cat([trained[position][:, :1], ramp.reshape(1, 16, -1)], dim=1)
    model = new_model(settings, 10, ImageSizes((96,), 96), 1)
    classifier = ("heads.head",) if name == "vit_b_16" else ("head",)
    assert take_over(model, trained, classifier, "w") == []
    state = model.state_dict()
    others = [key for key in trained if key != position]
    assert _equal(state, trained, others)
    assert torch.equal(state[position][:, 0], trained[position][:, 0])
    rows = state[position][0, 1:, 0].view(6, 6)
    assert (rows.diff(dim=0) > 0).all() and rows.diff(dim=1).abs().max() < 1e-4  # still a ramp from top to bottom


def test_a_frozen_backbone_keeps_the_files_weights(tmp_path, trained):
    save_file(trained, tmp_path / "w.safetensors")
    lines, say = _said()
    config = _config(name="cifar_resnet20", weights=str(tmp_path / "w.safetensors"), freeze_backbone=True)
    model = prepare_model(config, 9, ONE_RANK, say)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["classifier.weight", "classifier.bias"]
    assert lines[1] == "frozen: all but classifier"
    assert not any(module.training for module in model.train().modules() if isinstance(module, nn.BatchNorm2d))


def test_a_run_that_goes_on_reads_no_weights():
    config = _config(name="cifar_resnet20", weights="gone.pt", freeze_backbone=True)
    model = prepare_model(config, 9, ONE_RANK, lambda text: None, fresh=False)
    assert sum(p.requires_grad for p in model.parameters()) == 2
