"""From a preset and the command line to a Config."""

import argparse
import contextlib
import dataclasses
import functools
import io
import re
import tomllib
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from loaders.errors import FeedrateError, did_you_mean
from loaders.home_folder import expand_home

from .complaints import sentence
from .config import Config
from .option_names import name_meant, option_names, setting_names

PRESETS = Path(__file__).resolve().parent.parent / "configs"

_OPTION = re.compile(r"--|-(?!inf|nan)[A-Za-z]")  # and not a negative number

T = TypeVar("T")


def parse_config(arguments: Sequence[str], speaks: bool = True, more_options: Sequence[str] = ()) -> Config:
    """The configuration that `[--config NAME] [--option value …]` asks for: defaults, then the preset, then options.

    NAME is a file in configs/ without its ending, or the path of a TOML file. Only a process that `speaks` prints
    help, which exits the process with status 0. `more_options` are a caller's own, which it took out before and which
    a misspelling may have meant. Raises FeedrateError on a bad preset, option or value.
    """
    preset, options = _take_preset(list(arguments))
    config = load_preset(preset) if preset else Config(name="default")
    _refuse_unknown(options, more_options)
    parsed = _parse(options, config, _description(more_options), speaks)
    return parsed if parsed.name else dataclasses.replace(parsed, name=config.name)


class OwnOptions(argparse.ArgumentParser):
    """What a command understands beside all options of a run. Where help is asked for, `about` stands above them."""

    def __init__(self, about: str | None = None) -> None:
        super().__init__(usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False, exit_on_error=False)
        self._about = about

    def split(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, Callable[[], Config]]:
        """The command's own values, and what reads the configuration from all other arguments.

        That is called once the command has found its own values good, so that it speaks of them first. Prints the
        help of its own where help is asked for, and leaves ending the process to the configuration's. Raises
        FeedrateError for a value that is none, and the configuration for an option that neither knows.
        """
        if {"-h", "--help"} & set(arguments):
            print(*filter(None, (self._about, self.format_help())), sep="\n")
        try:
            chosen, others = self.parse_known_args(arguments)
        except argparse.ArgumentError as error:
            raise FeedrateError(str(error)) from error
        words = [word for action in self._actions for word in action.option_strings]
        return chosen, functools.partial(parse_config, others, more_options=words)


def _parse(options: list[str], config: Config, description: str, speaks: bool) -> Config:
    """`config` with what `options` say. Raises FeedrateError for a value, and SystemExit once help is printed."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(Config, default=config, args=options, description=description, console_outputs=speaks)
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise FeedrateError(sentence(complaint.getvalue())) from leaving


def _description(more_options: Sequence[str]) -> str:
    """What stands above all options. Those of a command with more of its own come after these."""
    of_run = "All options of a training run." if more_options else "Train an image classifier."
    presets = ", ".join(_preset_names())
    return (
        f"{of_run}\n--config NAME starts from a preset, or --config PATH.toml from a file of your own; options"
        f" override what it says. The presets are the files in configs/: {presets}."
    )


def load_preset(name: str) -> Config:
    """The preset called `name`, or the TOML file at that path. Its own name becomes the run's.

    `extends = "NAME"` in it takes over all that another preset says, one beside it or in configs/; what it says itself
    goes before that.
    """
    name = expand_home(name)
    path = Path(name) if name.endswith(".toml") else PRESETS / f"{name}.toml"
    is_path = name.endswith(".toml") or "/" in name
    if is_path and not path.is_file():
        near = did_you_mean(Path(name).stem, _preset_names())
        raise FeedrateError(
            f"there is no file {name}: {near}--config takes the path of a .toml file, or the name of one in configs/"
            " without its ending"
        )
    path = _find([path], name)
    return build(Config, {"name": path.stem, **_preset_content(path)}, str(path))


def _find(candidates: list[Path], name: str) -> Path:
    for path in candidates:
        if path.is_file():
            return path
    known = _preset_names()
    raise FeedrateError(f"no preset '{name}': {did_you_mean(name, known)}known are {', '.join(known)}")


def _preset_names() -> list[str]:
    return sorted(file.stem for file in PRESETS.glob("*.toml"))


def _preset_content(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What the preset at `path` says, on top of what it extends."""
    if path in extended_by:
        chain = " extends ".join(preset.stem for preset in (*extended_by, path))
        raise FeedrateError(f"presets must not extend each other in a circle: {chain}")
    try:
        content = tomllib.loads(path.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise FeedrateError(
            f"{path} is not UTF-8, as TOML must be: byte {error.start} is {error.object[error.start]:#04x}; save it as"
            " UTF-8"
        ) from error
    except OSError as error:
        raise FeedrateError(f"{path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise FeedrateError(f"{path} is not valid TOML: {error}") from error
    extends = content.pop("extends", "")
    if not isinstance(extends, str):
        raise FeedrateError(f"{path}: extends is {extends!r}: it must be the name of one preset")
    if not extends:
        return content
    base = _find([path.parent / f"{extends}.toml", PRESETS / f"{extends}.toml"], extends)
    inherited = _preset_content(base, (*extended_by, path))
    build(Config, inherited, str(base))  # what is wrong there is said of that file
    return _merged(inherited, content)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, table by table."""
    merged = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            merged[key] = _merged(base[key], over[key])
    return merged


def build(kind: type[T], values: dict[str, Any], where: str) -> T:
    """An instance of the dataclass `kind` from nested plain data; a key or type that does not fit is an error."""
    hints = typing.get_type_hints(kind)
    defaults = kind()
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            hint = _key_meant(kind, key, value)
            raise FeedrateError(f"{where}: unknown key '{key}': {hint}known are {', '.join(hints)}")
        default = getattr(defaults, key)
        checked[key] = _converted(hints[key], default, value, f"{where}: {key}")
    try:
        return kind(**checked)
    except FeedrateError as error:
        raise FeedrateError(f"{where}: {_with_key(kind, checked, str(error))}") from error


def _with_key(kind: type, values: dict[str, Any], message: str) -> str:
    """`message`, which `kind` says of these values, behind the key that is wrong by itself, unless it names it."""
    wrong = [key for key, value in values.items() if _refusal(kind, {key: value}) == message]
    is_named = len(wrong) != 1 or wrong[0] in re.findall(r"\w+", message)
    return message if is_named else f"{wrong[0]}: {message}"


def _refusal(kind: type, values: dict[str, Any]) -> str:
    try:
        kind(**values)
    except FeedrateError as error:
        return str(error)
    return ""


def _key_meant(kind: type, key: str, value: Any) -> str:
    """'did you mean X? ' with what a key that is none may have meant in the section `kind`, or ''."""
    sections = {hint: name for name, hint in typing.get_type_hints(Config).items() if dataclasses.is_dataclass(hint)}
    if isinstance(value, dict):
        return did_you_mean(key, sections.values()) if kind is Config else ""
    own = sections.get(kind, "")
    meant = name_meant(f"{own}.{key}" if own else key, setting_names(Config))
    if meant is None:
        return ""
    section, _, name = meant.replace("-", "_").rpartition(".")
    where = "" if section == own else f" in [{section}]" if section else ", above all sections"
    return f"did you mean {name}{where}? "


def _converted(hint: Any, default: Any, value: Any, where: str) -> Any:
    """`value` as the field's own type."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise FeedrateError(f"{where} is {value!r}: it must be a table")
        return build(hint, value, where)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        words, numbers = typing.get_args(hint)
        return _word_or_numbers(words, numbers, value, where)
    if typing.get_origin(hint) is typing.Literal and value not in typing.get_args(hint):
        raise FeedrateError(f"{where} is {value!r}: it must be one of {', '.join(typing.get_args(hint))}")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, tuple) and isinstance(value, list):
        return _tuple_of(hint, value, where)
    if type(value) is not type(default):
        raise FeedrateError(f"{where} is {value!r}: it must be of type {type(default).__name__}")
    return value


def _word_or_numbers(words: Any, numbers: Any, value: Any, where: str) -> Any:
    """`value` as one of these words, or as the tuple of numbers."""
    if isinstance(value, list):
        return _tuple_of(numbers, value, where)
    known = typing.get_args(words)
    if value not in known:
        raise FeedrateError(
            f"{where} is {value!r}: it must be one of {', '.join(known)}, or {len(typing.get_args(numbers))} numbers"
        )
    return value


def _tuple_of(hint: Any, values: list[Any], where: str) -> tuple[Any, ...]:
    """`values` as the tuple that `hint` names, each of its own type."""
    kinds = list(typing.get_args(hint))
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(values)
    if len(kinds) != len(values):
        raise FeedrateError(f"{where} is {values!r}: it must have {len(kinds)} values")
    items: list[Any] = []
    for kind, value in zip(kinds, values, strict=True):
        is_tuple = typing.get_origin(kind) is tuple
        default = () if is_tuple else kind()
        if is_tuple and not isinstance(value, list):
            raise FeedrateError(f"{where} has {value!r}: it must be a list")
        items.append(_converted(kind, default, value, where))
    return tuple(items)


def _take_preset(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Split `--config NAME` (or `--config=NAME`) from the other arguments."""
    for i, argument in enumerate(arguments):
        if argument == "--config":
            if i + 1 == len(arguments):
                raise FeedrateError("--config needs the name of a preset: a file in configs/ without its ending")
            return arguments[i + 1], arguments[:i] + arguments[i + 2 :]
        if argument.startswith("--config="):
            return argument.removeprefix("--config="), arguments[:i] + arguments[i + 1 :]
    return None, arguments


def _refuse_unknown(options: list[str], more_options: Sequence[str]) -> None:
    """One sentence for an option that does not exist; tyro then judges the values."""
    known = ["--config", "--help", *more_options, *option_names(Config)]
    for option in options:
        name = option.split("=")[0].replace("_", "-")
        if _OPTION.match(name) and name not in (*known, "-h"):
            meant = name_meant(name, known)
            hint = f"did you mean {meant}? " if meant else ""
            raise FeedrateError(f"unknown option {name}: {hint}--help lists them all")
