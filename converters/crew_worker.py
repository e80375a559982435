"""The far side of `converters.crew`: the life of a worker process."""

import os
import queue
import threading
import traceback
import warnings
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import cv2

from loaders.errors import FeedrateError

_OWN = "FEEDRATE_"
# imported once, in the process that forks the workers
PRELOADED = ["numpy", "cv2", "simplejpeg", "PIL.Image", "converters.pack_work"]


def own_environment() -> dict[str, str]:
    """The variables that are ours: the process that forks workers has those of its own start, which may be long ago."""
    return {name: value for name, value in os.environ.items() if name.startswith(_OWN)}


def serve(connection: Connection, state: Any, work: Any, environment: Mapping[str, str]) -> None:
    """Prepare and write what the first process asks for, until it is gone.

    state        int64 [3], shared: the task, the item in it, and a count of items begun, by which the first process
                 sees what a worker that died was at
    environment  see `own_environment`
    """
    for name in own_environment():
        del os.environ[name]
    os.environ.update(environment)
    cv2.setNumThreads(1)  # the crew is what runs in parallel
    warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no image; what cannot be used is told by name
    inbox: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox, work), daemon=True).start()
    kept: dict[int, Any] = {}
    while True:
        what, number, content = inbox.get()
        state[0], state[1] = number, -1
        state[2] += 1

        def at(item: int) -> None:
            state[1] = item
            state[2] += 1

        reply: tuple[str, int, Any]
        try:
            if what == "prepare":
                report, kept[number] = work.prepare(content, at)
                reply = ("prepared", number, report)
            else:
                work.write(kept.pop(number), content)
                reply = ("written", number, None)
        except Exception as error:
            if not isinstance(error, FeedrateError | OSError):
                error.add_note(traceback.format_exc())  # a bug: say where, since tracebacks cannot travel
            reply = ("failed", number, error)
        state[0] = -1
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.send(reply)


def _receive(connection: Connection, inbox: "queue.SimpleQueue[tuple[str, int, Any]]", work: Any) -> None:
    """Take messages as they come, so that the first process is never held up and files are read ahead.

    When the first process is gone, this one ends on the spot: a later run must not meet late writes of this one.
    """
    try:
        while True:
            message = connection.recv()
            if message[0] == "prepare":
                work.read_ahead(message[2])
            inbox.put(message)
    except (EOFError, OSError):
        os._exit(1)
