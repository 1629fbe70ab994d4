"""Puts this folder's helpers on the path: `dashboard_queries`, `real_prometheus`, `synthetic_month`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
