import re
from pathlib import Path
from typing import get_args

from clipdrift_contract.events import FaultKind

PAGE = Path(__file__).parents[3] / "docs/reference/training-faults.md"


def test_every_fault_has_a_row_that_says_what_to_do():
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert sorted(rows) == sorted(get_args(FaultKind))
