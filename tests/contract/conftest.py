"""Puts this folder on the path, for the builder of golden files."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
