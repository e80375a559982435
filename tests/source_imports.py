"""What a source file imports, read from its text."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# where a name that is imported can lie: tests put their own folders on the path
_ROOTS = (REPOSITORY, REPOSITORY / "tests")


def imports(path: Path) -> Iterator[str]:
    """Absolute names of all that a file imports, also inside functions: modules, and what is taken from them."""
    package = path.parent.relative_to(REPOSITORY).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def reached(start: Iterable[Path]) -> set[Path]:
    """These files and all of this repository that they import, directly or not."""
    found: set[Path] = set()
    waiting = list(start)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in imports(path):
            relative = Path(*name.split("."))
            for root in _ROOTS:
                candidates = (root / relative.with_suffix(".py"), root / relative / "__init__.py")
                waiting += [candidate for candidate in candidates if candidate.is_file()]
    return found
