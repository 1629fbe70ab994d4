"""Puts what the tests of the store share on the path: store_contents."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
