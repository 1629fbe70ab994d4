"""One evidence pack: `python -m clipdrift_monitor.evidence ORDER.json`."""

import os
import sys
import warnings
from pathlib import Path

if __name__ == "__main__":
    # Before anything that reads them is imported: no telemetry, one core only.
    os.environ["DO_NOT_TRACK"] = "1"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = "1"
    warnings.simplefilter("ignore")  # Evidently's, of pandas and numpy; a log is for what somebody can act on
    from clipdrift_monitor.evidence.limits import limit
    from clipdrift_monitor.evidence.make import main

    limit()

    sys.exit(main(Path(sys.argv[1])))
