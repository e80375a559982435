"""The native kernel: compiled once by the system's compiler, kept in a cache, and used only if its bits are right.

`python -m loaders.native.library` builds it ahead of time and says what became of it.
"""

import contextlib
import ctypes
import functools
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from ..cache_folder import cache_folder
from ..errors import FeedrateError
from ..resampling import Resampling
from .self_check import difference, resampling_difference

_SOURCES = Path(__file__).parent
# Nothing that depends on the processor it is compiled on: the cache may be shared by several. Products and sums stay
# separate operations, as OpenCV has them.
_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-Wl,-Bsymbolic", "-ffp-contract=off", "-fno-math-errno")
_STRICT = ("-Werror=implicit-function-declaration",)  # a libjpeg without windows is found here, not when it is called
_LIBRARIES = ("-ljpeg", "-lm")
_INSTALL = "install gcc, libc6-dev and libjpeg-dev (libjpeg-turbo)"
_MAX_COMPILE_S = 120
_DIGEST_BYTES = 32

_PLACE, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
# what Python calls: what each returns, and is given
_FUNCTIONS = {
    "feedrate_new": (_PLACE, (_INT, ctypes.c_char_p, _INT, _INT)),
    "feedrate_time": (None, (_PLACE, _PLACE)),
    "feedrate_free": (None, (_PLACE,)),
    "feedrate_paint": (None, (_PLACE, _PLACE, _INT, _PLACE, _PLACE)),
    "feedrate_copy": (None, (_PLACE, _PLACE, _INT, _PLACE, _PLACE, _PLACE)),
    "feedrate_seek_points": (_LONG, (_PLACE, _LONG, _INT, _PLACE, _LONG)),
    "feedrate_add_restarts": (_LONG, (_PLACE, _LONG, _PLACE)),
    "feedrate_release": (None, (_PLACE,)),
    "feedrate_cut": (_LONG, (_PLACE, _LONG, _PLACE, _PLACE, _PLACE)),
    "feedrate_stage_row_bytes": (_LONG, ()),
}


class NotAvailable(FeedrateError):
    """The kernel cannot be used; the message says why."""


def load(resize: Resampling = "area") -> ctypes.CDLL | None:
    """The kernel, or None where `why_not` says why; compiled at the first call on a machine, which takes seconds.

    resize  in which mode; it may differ in one from what is installed here and in another not
    """
    return None if why_not(resize) else _load_once()[0]


def required() -> ctypes.CDLL:
    """The kernel. Raises NotAvailable where there is none."""
    library = load()
    if library is None:
        raise NotAvailable(why_not())
    return library


def decode_codes(by_libjpeg: bool) -> None:
    """Leave Huffman codes to libjpeg from now on, or not, so that both can be compared; the bits are the same."""
    library = load()
    if library is not None:
        ctypes.c_int32.in_dll(library, "feedrate_own_codes").value = not by_libjpeg


def num_files_decoded(library: ctypes.CDLL) -> int:
    """Of how many files this process has decoded the codes without libjpeg, in whole or in part."""
    return ctypes.c_uint32.in_dll(library, "feedrate_files_taken_over").value


def num_windows_sought(library: ctypes.CDLL) -> tuple[int, int]:
    """How many windows this process has decoded from seek points on, and of how many it had to give them up."""
    names = "feedrate_windows_sought", "feedrate_points_given_up"
    done, given_up = (ctypes.c_uint32.in_dll(library, name).value for name in names)
    return done, given_up


def why_not(resize: Resampling = "area") -> str:
    """One sentence on why there is no kernel, or none for this mode; empty if there is one."""
    if os.environ.get("FEEDRATE_NATIVE") == "0":
        return "the native kernel is switched off by FEEDRATE_NATIVE=0"
    return _load_once()[1] or ("" if resize == "area" else _why_not_in(resize))


@functools.cache
def _load_once() -> tuple[ctypes.CDLL | None, str]:
    try:
        library = _built()
        problem = difference(library)
        if problem:
            raise NotAvailable(f"the native kernel is not used, since {problem}")
        return library, ""
    except NotAvailable as error:
        return None, str(error)
    except Exception as error:  # whatever it is: the same pixels can be made without the kernel
        return None, f"the native kernel cannot be used ({type(error).__name__}: {' '.join(str(error).split())})"


@functools.cache
def _why_not_in(mode: Resampling) -> str:
    """Of a kernel that mode `area` can use."""
    library = _load_once()[0]
    problem = resampling_difference(library, mode) if library else ""
    return f"the native kernel is not used in mode {mode}, since {problem}" if problem else ""


def _built() -> ctypes.CDLL:
    """From the cache; built where the cache has none, or one that is damaged or of another system."""
    compiler = _compiler()
    path = cache_folder() / f"native-{_key(compiler)}.so"
    if _is_whole(path):
        with contextlib.suppress(OSError):
            return _opened(path)
    _build(compiler, path)
    try:
        return _opened(path)
    except OSError as error:
        raise NotAvailable(f"the native kernel was built and cannot be loaded ({error}): {_INSTALL}") from error


def _opened(path: Path) -> ctypes.CDLL:
    # All symbols now, and its own libjpeg before any other that the process has loaded.
    library = ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _compiler() -> list[str]:
    """The command: CC, else the system's."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        command = shlex.split(name)
        found = shutil.which(command[0]) if command else None
        if found:
            return [found, *command[1:]]
    raise NotAvailable(f"the native kernel needs a C compiler, and there is none: {_INSTALL}")


def _key(compiler: list[str]) -> str:
    """Of all that the result depends on. The compiler's file stands for its version: asking it takes longer."""
    program = Path(compiler[0]).resolve()
    status = program.stat()
    digest = sha256(repr((compiler, str(program), status.st_size, status.st_mtime_ns)).encode())
    digest.update(repr((_FLAGS, _STRICT, _LIBRARIES, platform.machine())).encode())
    for source in sorted([*_SOURCES.glob("*.c"), *_SOURCES.glob("*.h")]):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:24]


def _build(compiler: list[str], path: Path) -> None:
    """Compile to `path`: whole or not at all, whoever else is at it. Its SHA-256 is appended, which loading ignores."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".native-", dir=path.parent) as folder:
            output = Path(folder) / path.name
            sources = map(str, sorted(_SOURCES.glob("*.c")))
            command = [*compiler, *_FLAGS, *_STRICT, "-o", str(output), *sources, *_LIBRARIES]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_MAX_COMPILE_S, cwd=folder)
            if done.returncode:
                raise NotAvailable(
                    f"the native kernel cannot be compiled ({_first_error(done.stderr)}): {_INSTALL},"
                    " or set FEEDRATE_NATIVE=0"
                )
            output.write_bytes(output.read_bytes() + sha256(output.read_bytes()).digest())
            os.replace(output, path)
    except OSError as error:
        raise NotAvailable(
            f"the native kernel cannot be kept in {path.parent} ({error.strerror}): set FEEDRATE_CACHE to a folder"
            " that can be written to"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise NotAvailable(f"compiling the native kernel took more than {_MAX_COMPILE_S} s: try again") from error


def _first_error(messages: str) -> str:
    lines = messages.strip().splitlines() or ["no message"]
    line = next((line for line in lines if "error" in line or "cannot find" in line), lines[-1])
    return line.removeprefix(f"{_SOURCES}/").strip()


def _is_whole(path: Path) -> bool:
    """Loading a damaged library could end the process."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return sha256(data[:-_DIGEST_BYTES]).digest() == data[-_DIGEST_BYTES:]


def main() -> int:
    """Build what is not built yet and say so; 0 if the kernel can be used."""
    if load() is None:
        print(why_not(), file=sys.stderr)
        return 1
    print(f"the native kernel is ready in {cache_folder()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
