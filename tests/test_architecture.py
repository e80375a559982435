"""The table of docs/architecture.md as a test: who may import whom, what things are called, how large they grow."""

import ast
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from source_imports import REPOSITORY, imports

PACKAGES = ("loaders", "converters", "engine", "tools")

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 50
MAX_PARAMETERS = 8
MAX_WIDTH = 120
# at most three, each with its reason in one line
EXCEPTIONS: dict[str, str] = {}

FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "misc"}
# asked for under this name, and kept from hiding the standard library's `profile` by its own first lines
NAME_CLASH_ALLOWED = {"tools/profile.py"}

# what converters may take from loaders: the formats they read and share, the crops that `show` draws, and no loader
CONVERTERS_MAY_TAKE = {
    *(
        "atomic",
        "counter_random",
        "cpus",
        "ending_signals",
        "errors",
        "held_signals",
        "lost_output",
        "manifest",
        "records",
        "sample_table",
        "packed_folder",
        "seek_points",
        "system_limits",
    ),
    *(
        "beton_layout",
        "beton_records",
        "cifar_records",
        "folder_records",
        "raw_records",
        "shard_layout",
        "shard_records",
    ),
    *("folder_scan", "packed_names", "soundness", "plan", "crops", "pixels", "native", "home_folder"),
}
# what the engine may not: a loader or a format by its own name; `choose` and `records` open them
ENGINE_MAY_NOT_TAKE_ENDINGS = ("_loader", "_records", "packed_folder")
ENGINE_EXCEPTIONS = {"synthetic_records"}  # stands for data that are not there, so nothing could be opened


_LIGHT = (
    *("__init__", "records", "plan", "orders", "sampling", "subsets", "view", "crops"),
    *(
        "manifest",
        "packed_folder",
        "sample_table",
        "seek_points",
        "mapped_file",
        "read_ahead",
        "page_cache",
        "memory_limit",
        "stored_form",
    ),
)


def _files(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (REPOSITORY / package).rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _uses(path: Path, module: str) -> bool:
    return any(name == module or name.startswith(module + ".") for name in imports(path))


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("loaders", ("engine", "converters", "tools", "torch.distributed")),
        ("converters", ("engine", "tools", "torch", "torchvision")),
        ("engine", ("converters", "tools", "ffcv", "nvidia")),
    ],
)
def test_packages_never_import_what_is_above_them(package, never):
    for path in _files(package):
        for module in never:
            assert not _uses(path, module), f"{_name(path)} imports {module}"


def test_converters_take_only_formats_from_loaders():
    for path in _files("converters"):
        taken = {name.split(".")[1] for name in imports(path) if name.startswith("loaders.")}
        assert taken <= CONVERTERS_MAY_TAKE, f"{_name(path)} imports {taken - CONVERTERS_MAY_TAKE}"


def test_the_engine_reaches_loaders_and_formats_only_by_opening_them():
    for path in _files("engine"):
        taken = {name.split(".")[1] for name in imports(path) if name.startswith("loaders.")} - ENGINE_EXCEPTIONS
        assert not [name for name in taken if name.endswith(ENGINE_MAY_NOT_TAKE_ENDINGS)], _name(path)


def test_records_and_plans_do_without_torch_since_converters_start_many_processes_with_them():
    light = [*(REPOSITORY / "loaders").glob("*_records.py"), *(REPOSITORY / "loaders").glob("*_layout.py")]
    light += [REPOSITORY / "loaders" / f"{name}.py" for name in _LIGHT]
    for path in light:
        assert not _uses(path, "torch") and not _uses(path, "loaders.api"), _name(path)


def test_the_document_names_every_module_of_the_engine_in_the_row_of_its_room():
    document = (REPOSITORY / "docs" / "architecture.md").read_text()
    rooms = document.split("### Rooms of the engine")[1].split("\n\n## ")[0].splitlines()
    rows = {line.split("|")[1].split()[0].strip("`"): line for line in rooms if line.startswith("| ")}
    for path in _files("engine"):
        room = "at" if path.parent.name == "engine" else f"{path.parent.name}/"
        assert path.stem == "__init__" or f"`{path.stem}`" in rows[room], f"{_name(path)} is not named"


def test_every_room_is_installed():
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {path.parent for path in _files("loaders", "converters", "engine")}
    assert set(listed) == {".".join(room.relative_to(REPOSITORY).parts) for room in rooms}


def test_tools_are_not_imported():
    for path in _files("loaders", "converters", "engine"):
        assert not _uses(path, "tools"), _name(path)


def test_no_module_hides_the_standard_library_or_a_dependency():
    distributions = {name.lower().replace("-", "_") for name in metadata.packages_distributions()}
    for path in _files(*PACKAGES):
        if path.stem == "__init__" or _name(path) in NAME_CLASH_ALLOWED:
            continue
        assert path.stem not in sys.stdlib_module_names, _name(path)
        assert path.stem not in distributions - {"loaders", "converters", "engine"}, _name(path)


def test_no_module_is_called_by_a_name_that_says_nothing():
    for path in _files(*PACKAGES, "tests"):
        assert path.stem not in FORBIDDEN_NAMES, _name(path)


def test_files_stay_within_their_budget():
    for path in _files(*PACKAGES):
        lines = len(path.read_text().splitlines())
        assert lines <= MAX_FILE_LINES or _name(path) in EXCEPTIONS, f"{_name(path)} has {lines} lines"


def test_paragraphs_stay_within_the_width_of_the_code():
    documents = REPOSITORY / "docs"
    for page in (*REPOSITORY.glob("*.md"), *documents.glob("*.md"), documents / "benchmarks" / "README.md"):
        for number, line in enumerate(page.read_text().splitlines(), start=1):
            is_prose = not line.startswith(("|", "#", "    "))
            assert len(line) <= MAX_WIDTH or not is_prose, f"{page.name}:{number} has {len(line)} characters"


def test_functions_stay_within_their_budget():
    for path in _files(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            where = f"{_name(path)}:{node.name}"
            lines = node.end_lineno - node.lineno + 1
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            parameters = [argument for argument in arguments if argument.arg not in ("self", "cls")]
            assert lines <= MAX_FUNCTION_LINES or where in EXCEPTIONS, f"{where} has {lines} lines"
            assert len(parameters) <= MAX_PARAMETERS or where in EXCEPTIONS, f"{where} has {len(parameters)} parameters"


def test_exceptions_are_few_and_real():
    assert len(EXCEPTIONS) <= 3
    for where in EXCEPTIONS:
        assert (REPOSITORY / where.split(":")[0]).is_file()


def test_public_functions_and_classes_have_docstrings():
    for path in _files("loaders", "converters", "engine"):
        tree = ast.parse(path.read_text())
        if path.name != "__init__.py" or tree.body:
            assert ast.get_docstring(tree), f"{_name(path)} has no docstring"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{_name(path)}: {node.name} has no docstring"


def test_types_are_checked_for_the_interpreter_that_is_installed():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["mypy"]
    # the lock has another NumPy for 3.12 and later, whose stubs an older Python's grammar cannot read
    assert "python_version" not in settings
