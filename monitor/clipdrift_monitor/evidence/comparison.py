"""Detectors on rows, on demand: rows are read off the bus and compared in a process of its own, with limits, and never in the
monitor's: it holds no rows."""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from clipdrift_contract.errors import ClipdriftError
from clipdrift_monitor.evidence.order import EvidenceOrder

COMMAND = (sys.executable, "-m", "clipdrift_monitor.evidence.compare")
MAX_SECONDS = 600.0
_LAST_LINES = 3


class RowOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to compare, by which detectors: "mmd", "evidently:METHOD"."""

    rows: EvidenceOrder
    detectors: tuple[str, ...]


class RowFinding(msgspec.Struct, frozen=True, kw_only=True):
    """What one detector says of one feature, or of all together (`feature` "")."""

    detector: str
    feature: str
    value: float | None  # a p-value or a distance, as the detector has it; None: it could not say
    threshold: float | None
    is_drift: bool
    words: str


class RowFindings(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found; `words` says why nothing was, where no rows were recorded."""

    num_reference: int
    num_current: int
    findings: tuple[RowFinding, ...] = ()
    words: str = ""


def compare_rows(order: RowOrder, command: Sequence[str] = COMMAND, max_seconds: float = MAX_SECONDS) -> RowFindings:
    """Have the rows compared; blocks until it is done.

    Args:
        order: What.
        command: The process; the path of the order and that of the answer are appended.
        max_seconds: After so long it is killed.

    Raises:
        ClipdriftError: The process failed, or took too long; the message has its last words.
    """
    with tempfile.TemporaryDirectory(prefix="clipdrift-rows-") as folder:
        question, answer = Path(folder) / "order.json", Path(folder) / "found.json"
        question.write_bytes(msgspec.json.encode(order))
        try:
            done = subprocess.run(
                (*command, str(question), str(answer)), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=max_seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ClipdriftError(f"comparing rows took more than {max_seconds:.0f} s; choose a shorter window") from error
        if done.returncode or not answer.exists():
            last = " ".join(done.stderr.strip().splitlines()[-_LAST_LINES:]) or "it said nothing"
            raise ClipdriftError(f"rows could not be compared, the process ended with {done.returncode}: {last}")
        return msgspec.json.decode(answer.read_bytes(), type=RowFindings)
