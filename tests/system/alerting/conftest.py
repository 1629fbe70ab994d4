"""Lets the tests of this room import what they share with each other and with the monitor's tests."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "monitor")]
