"""Runs one of this project's commands as if there were a GPU: python tests/nominal_command.py engine/train.py …"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    TESTS = Path(__file__).resolve().parent
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]

    from nominal_cuda import nominal_cuda

    del sys.argv[0]
    with nominal_cuda():
        runpy.run_path(sys.argv[0], run_name="__main__")
