"""Lets the tests of this room import what bench/threshold.py measures in."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
