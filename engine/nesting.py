"""Plain data within plain data, on one level."""

from typing import Any


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` without nesting: inner names follow outer ones after a dot."""
    row: dict[str, Any] = {}
    for name, value in tree.items():
        row |= (
            flat({f"{name}.{inner}": of_it for inner, of_it in value.items()})
            if isinstance(value, dict)
            else {name: value}
        )
    return row


def is_within(key: str, name: str) -> bool:
    """Whether `name` is the dotted `key` or a section that holds it."""
    return key == name or key.startswith(name + ".")
