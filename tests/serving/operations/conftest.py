"""Puts the bench that starts the server as it is sold on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "bench" / "serving_peers"))
