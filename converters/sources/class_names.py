"""What the classes are called by people, where a list of names lies beside the data."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from loaders.errors import FeedrateError

_WNID = re.compile(r"n\d{8}")  # a class of WordNet, which ImageNet's folders are called by


def class_names(classes: Sequence[str], folders: Iterable[Path]) -> tuple[str, ...]:
    """One name a class: from the first list found in `folders` if any class is a wnid, else the classes themselves.

    Known are LOC_synset_mapping.txt (Kaggle's), synset_words.txt, words.txt (WordNet's) and imagenet_class_index.json
    (Keras'). A class that the list does not name keeps its own. Raises FeedrateError for a list that cannot be read.
    """
    if not any(_WNID.fullmatch(name) for name in classes):
        return tuple(classes)
    for folder in folders:
        for file_name, read in _LISTS.items():
            if (folder / file_name).is_file():
                names = read_list(folder / file_name, read)
                return tuple(names.get(name, name) for name in classes)
    return tuple(classes)


def synset_lines(text: str) -> dict[str, str]:
    """Names by wnid, from lines such as "n01440764 tench, Tinca tinca", with a space or a tab behind the wnid."""
    names = {}
    for line in text.splitlines():
        if line.strip():
            wnid, _, name = line.replace("\t", " ", 1).strip().partition(" ")
            names[wnid] = name.strip() or wnid
    return names


def read_list(path: Path, read: Callable[[str], dict[str, str]] = synset_lines) -> dict[str, str]:
    """Names by wnid of one file. Raises FeedrateError where it is not what its name says."""
    try:
        names = read(path.read_text(encoding="utf-8-sig"))
        if not any(_WNID.fullmatch(wnid) for wnid in names):
            raise ValueError("it names no wnid, such as n01440764")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise FeedrateError(f"{path} is not a list of class names ({error}): mend or remove it") from error
    return names


def _class_index(text: str) -> dict[str, str]:
    """From {"0": ["n01440764", "tench"], …}."""
    return {str(wnid): str(name) for wnid, name in json.loads(text).values()}


_LISTS = {
    "LOC_synset_mapping.txt": synset_lines,
    "synset_words.txt": synset_lines,
    "words.txt": synset_lines,
    "imagenet_class_index.json": _class_index,
}
