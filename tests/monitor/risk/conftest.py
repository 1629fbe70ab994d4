"""Lets the tests of this room import the worlds that bench/harm.py measures in, and the windows' batches."""

import sys
from pathlib import Path

_HERE = Path(__file__).parent
for folder in (_HERE.parents[2] / "bench", _HERE.parent / "windows"):
    sys.path.insert(0, str(folder))
