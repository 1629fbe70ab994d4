"""The process that compares rows: `python -m clipdrift_monitor.evidence.compare ORDER.json FOUND.json`."""

import os
import resource
import sys
import warnings
from pathlib import Path

import msgspec

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.files import write_whole
from clipdrift_monitor.detectors.joint import mmd
from clipdrift_monitor.evidence.comparison import RowFinding, RowFindings, RowOrder
from clipdrift_monitor.evidence.page import MIN_ROWS
from clipdrift_monitor.evidence.rows import Found, read_rows

_PROVEN = 0.01
_MAX_BYTES = 6 * 2**30  # of address space, of which Evidently maps a few for nothing
_EVIDENTLY = "evidently:"


def main(order_path: Path, found_path: Path) -> int:
    """Compare, and write what was found; the exit code is 0, or 1 with a word on stderr."""
    try:
        order = msgspec.json.decode(order_path.read_bytes(), type=RowOrder)
        bus = connect(order.rows.bus_url)
        try:
            found = compare(order, read_rows(bus, order.rows))
        finally:
            bus.close()
    except ImportError as error:
        sys.stderr.write(f"Evidently cannot be imported ({error}): pip install 'clipdrift[evidence]'\n")
        return 1
    except (ClipdriftError, OSError, MemoryError, msgspec.DecodeError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    write_whole(found_path, msgspec.json.encode(found), found_path.with_suffix(".partial"))
    return 0


def compare(order: RowOrder, rows: Found) -> RowFindings:
    """What each detector says of the rows found."""
    num_before, num_now = rows.reference.num_rows, rows.current.num_rows
    if min(side.num_sampled for side in rows) < MIN_ROWS or not rows.current.features:
        words = (
            f"Not watched: {num_before:,} recorded rows before and {num_now:,} now; {MIN_ROWS} with their features are needed "
            "on either side. Serving records features where its settings say so."
        )
        return RowFindings(num_reference=num_before, num_current=num_now, words=words)
    findings = [one for name in order.detectors for one in _findings(name, rows)]
    return RowFindings(num_reference=num_before, num_current=num_now, findings=tuple(findings))


def _findings(name: str, rows: Found) -> list[RowFinding]:
    before, now = rows.reference.features, rows.current.features
    if name.startswith(_EVIDENTLY):
        from clipdrift_monitor.evidence.evidently_tests import value_drifts  # noqa: PLC0415  4 s, where it is asked for

        return value_drifts(name.removeprefix(_EVIDENTLY), before, now)
    found = mmd(before, now)
    is_drift = found.p_value < _PROVEN
    return [RowFinding(detector=name, feature="", value=found.p_value, threshold=_PROVEN, is_drift=is_drift, words=found.words)]


if __name__ == "__main__":
    os.environ["DO_NOT_TRACK"] = "1"
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[variable] = "1"
    warnings.simplefilter("ignore")
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
