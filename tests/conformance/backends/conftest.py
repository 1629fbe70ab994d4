"""Puts what the tests of the backends share on the path: ci_fakes, backend_places."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
