"""Evidence packs that are old enough to go."""

import contextlib
from pathlib import Path

_SECONDS_PER_DAY = 86_400
_MAX_FILES = 500  # in one go
_SUFFIXES = (".html", ".json", ".log")


def remove_old_packs(folder: Path, days: int) -> int:
    """Remove files of packs that are `days` older than the newest one; how many there were. 0 days: none is ever removed.

    Ages are taken from one another and not from a clock, so one that jumped ahead removes nothing.
    """
    if not days or not folder.is_dir():
        return 0
    written = {path: path.stat().st_mtime for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file()}
    before = max(written.values(), default=0.0) - days * _SECONDS_PER_DAY
    old = sorted(path for path, at in written.items() if at < before)[:_MAX_FILES]
    for path in old:
        with contextlib.suppress(OSError):  # somebody else's now, or gone already
            path.unlink()
    return len(old)
