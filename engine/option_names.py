"""The options of a run by their names, and the one that a name which is none may have meant."""

import dataclasses
import typing
from collections.abc import Iterable
from difflib import SequenceMatcher

# the least share of letters in order that two names have in common for one to be a slip for the other: of their last
# parts, and of the whole names, which a common section makes alike
_ALIKE = 0.7
_ALIKE_AS_A_WHOLE = 0.85

# ours: what other engines (timm, torchvision's and FFCV's references, Lightning, Keras) call it
_CALLED_ELSEWHERE = {
    "name": "run-name exp exp-name experiment experiment-name",
    "epochs": "max-epochs num-epochs n-epochs num-train-epochs",
    "seed": "random-seed manual-seed",
    "data.path": "data dataset data-dir data-path data-root dataset-dir dataset-path root root-dir",
    "data.train-split": "train-dir train-folder",
    "data.eval-split": "val-dir val-split valid-split val-folder validation-split",
    "data.expected-classes": "num-classes nb-classes n-classes",
    "data.batch-size": "b bs batch train-batch-size per-device-train-batch-size",
    "data.eval-batch-size-per-rank": "eval-batch-size val-batch-size validation-batch-size test-batch-size vbs",
    "data.workers": "j num-workers n-workers nworkers nw num-worker dataloader-num-workers",
    "data.batches-ahead": "prefetch prefetch-factor",
    "data.page-cache": "cache in-memory cache-dataset",
    "data.size-px": "size img-size image-size imgsz im-size res resolution input-size crop-size train-crop-size",
    "data.eval-size-px": "eval-size val-size val-res val-crop-size test-size test-crop-size eval-crop-size",
    "data.eval-resize-px": "val-resize-size eval-resize-size resize-size",
    "data.crop-scale": "scale",
    "data.crop-ratio": "ratio",
    "data.flip-probability": "flip hflip horizontal-flip",
    "data.flip-alternates": "altflip alternating-flip",
    "data.eval-flip": "tta flip-tta test-time-augmentation",
    "data.normalize": "mean std img-mean img-std image-mean image-std norm normalise normalization normalisation",
    "data.resize": "interpolation train-interpolation",
    "model.name": "a arch architecture model model-name net network backbone",
    "model.weights": "weights weight pretrained finetune init-weights initial-checkpoint pretrained-weights",
    "model.dropout": "drop drop-rate dropout-rate",
    "model.drop-path": "drop-path-rate stochastic-depth stochastic-depth-prob",
    "model.freeze-backbone": "freeze linear-probe",
    "optim.name": "opt optimizer optimiser optim optimizer-name",
    "optim.learning-rate": "lr base-lr blr init-lr initial-lr peak-lr",
    "optim.weight-decay": "wd decay l2",
    "optim.betas": "opt-betas adam-betas",
    "optim.schedule": "sched scheduler lr-scheduler lr-schedule lr-scheduler-type",
    "optim.warmup-epochs": "warmup warm-up warmup-epoch lr-warmup lr-warmup-epochs warmup-steps lr-warmup-steps",
    "optim.milestones": "lr-steps decay-milestones lr-step-size decay-epochs",
    "optim.milestone-factor": "gamma lr-gamma decay-rate lr-decay-rate",
    "optim.plateau-patience": "patience patience-epochs",
    "optim.label-smoothing": "smoothing label-smooth ls",
    "optim.clip-norm": "clip clip-grad clip-grad-norm grad-clip grad-clip-norm max-grad-norm gradient-clip-val",
    "optim.rate-factors": "lr-scale lr-mult lr-multiplier param-groups",
    "optim.frozen-epochs": "freeze-epochs unfreeze unfreeze-epoch freeze-at freeze-layers frozen-stages",
    "optim.lookahead-every-updates": "lookahead lookahead-k",
    "optim.accumulate": "accum accum-iter grad-accum grad-accum-steps gradient-accumulation-steps"
    " accumulate-grad-batches",
    "augment.shift-px": "translate random-translate",
    "augment.policy": "aa aug auto-augment autoaugment randaugment rand-augment trivial-augment",
    "augment.policy-magnitude": "ra-magnitude",
    "augment.mixup-alpha": "mixup",
    "augment.cutmix-alpha": "cutmix",
    "augment.erase-probability": "reprob random-erase random-erasing",
    "average.ema-decay": "ema model-ema model-ema-decay ema-beta",
    "average.swa-start-epoch": "swa swa-start",
    "execution.device": "gpu gpus gpu-id accelerator",
    "execution.precision": "amp fp16 bf16 half dtype amp-dtype mixed-precision",
    "execution.compile": "torchcompile torch-compile jit",
    "execution.checkpoint-activations": "grad-checkpointing gradient-checkpointing activation-checkpointing",
    "run.folder": "output output-dir out-dir outdir save-dir log-dir logdir work-dir",
    "run.resume": "continue auto-resume resume-from-checkpoint start-epoch",
    "run.checkpoint-every-epochs": "save-freq save-interval save-every checkpoint-freq checkpoint-interval",
    "run.checkpoints-kept": "checkpoint-hist save-total-limit",
    "run.best-metric": "eval-metric monitor",
    "run.log-every-steps": "print-freq log-freq log-interval log-every print-every logging-steps",
    "run.tensorboard": "tb use-tensorboard",
}
ELSEWHERE = {word: name for name, words in _CALLED_ELSEWHERE.items() for word in words.split()}


def setting_names(kind: type, prefix: str = "") -> list[str]:
    """The settings of a configuration class as the command line spells them, section and all: data.batch-size."""
    names = []
    for name, hint in typing.get_type_hints(kind).items():
        spelt = prefix + name.replace("_", "-")
        names += setting_names(hint, spelt + ".") if _is_section(hint) else [spelt]
    return names


def option_names(kind: type, prefix: str = "--") -> list[str]:
    """The command-line options of a configuration class, as tyro spells them."""
    names = []
    for name, hint in typing.get_type_hints(kind).items():
        option = prefix + name.replace("_", "-")
        if _is_section(hint):
            names += option_names(hint, option + ".")
        else:
            names.append(option)
            if hint is bool:
                names.append(f"{prefix}no-{name.replace('_', '-')}")
    return names


def name_meant(word: str, known: Iterable[str]) -> str | None:
    """Which of `known` names, dotted or not, `word` most likely stands for; None where none is near.

    In this order: another section's name (batch-size for data.batch-size), what other engines call it, a slip. Where
    several sections have a name, and none is given, what other engines mean by it goes first.
    Dashes in front are not looked at, and an underscore is a dash.
    """
    names = {name.lstrip("-"): name for name in known}
    word = word.lstrip("-").replace("_", "-").lower()
    if word.startswith("no-") and "." in word:  # of a switch the section stands first
        word = f"{word.removeprefix('no-').rpartition('.')[0]}.no-{_last_part(word)}"
    last = _last_part(word)
    of_other_sections = [name for name in names if _last_part(name) == last]
    if len(of_other_sections) > 1 and last == word and ELSEWHERE.get(word) in names:
        return names[ELSEWHERE[word]]
    if of_other_sections:
        return names[max(of_other_sections, key=lambda name: _likeness(word, name))]
    for alias in (word, last):
        if ELSEWHERE.get(alias) in names:
            return names[ELSEWHERE[alias]]
    # (how near, whether of the same section): the nearest, and of several the one that was looked for there
    section = word.removesuffix(last)
    near = {name: (_nearness(word, name), name.removesuffix(_last_part(name)) == section) for name in names}
    best = max(near, key=lambda name: near[name], default=None)
    return None if best is None or not near[best][0] else names[best]


def _nearness(word: str, name: str) -> float:
    """0 where the two are not near enough for one to be a slip for the other."""
    of_last = _likeness(_last_part(word), _last_part(name))
    as_a_whole = _likeness(word.replace(".", "-"), name.replace(".", "-"))
    return max(of_last if of_last >= _ALIKE else 0.0, as_a_whole if as_a_whole >= _ALIKE_AS_A_WHOLE else 0.0)


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def _is_section(hint: typing.Any) -> bool:
    return dataclasses.is_dataclass(hint) and isinstance(hint, type)
