"""The words after a plot's name."""

import argparse
from typing import NoReturn

from loaders.errors import FeedrateError


class Arguments(argparse.ArgumentParser):
    """A parser that answers bad words with one sentence instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise FeedrateError(f"{message.removeprefix('argument ')} (see plot.py {self.prog.split()[-1]} --help)")
