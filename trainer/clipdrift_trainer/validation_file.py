"""Keeps a version's validation beside its model file, so that a later run can tell which slices got worse."""

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from clipdrift_contract.events import ScoreInterval

_log = logging.getLogger(__name__)
VALIDATION_NAME = "validation.json"


def write_validation(folder: Path, intervals: Sequence[ScoreInterval]) -> None:
    """Write the figures of the version whose folder this is; whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{VALIDATION_NAME}.partial"
    partial.write_bytes(msgspec.json.encode(tuple(intervals)))
    partial.replace(folder / VALIDATION_NAME)


def read_validation(folder: Path) -> tuple[ScoreInterval, ...]:
    """The figures of the version whose folder this is; none where they were never written or cannot be read."""
    path = folder / VALIDATION_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[ScoreInterval, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError) as error:
        _log.warning("%s cannot be read (%s): what got worse since then is not told", path, error)
        return ()
