"""Lets the tests of the integrations import the loop by hand that they are compared with."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
