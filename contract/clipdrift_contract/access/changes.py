"""Whether files have changed since they were last looked at, for less than a system call a request."""

from collections.abc import Sequence
from pathlib import Path

from clipdrift_contract.clock import Clock

_LOOK_SECONDS = 1.0
_Mark = tuple[int, int, int]  # inode, time of the last change in nanoseconds, size
_MISSING: _Mark = (0, 0, 0)
_FRESH_NS = 1_000_000_000


class FileChanges:
    """Looks at files at most once a second. No thread of its own, and not safe to share between threads.

    A file that was younger than a second when it was looked at may be written again within the tick of its file system and keep
    its time and size, so it counts as changed once more at the next look.

    Args:
        files: What to look at. A missing file has a mark of its own: it changes when it appears.
        clock: Says when a second is over, and how old a file is.
    """

    def __init__(self, files: Sequence[Path], clock: Clock) -> None:
        self._files = tuple(files)
        self._clock = clock
        self._next_look = 0.0
        self._seen: tuple[_Mark, ...] = ()
        self._is_fresh = False
        self.mark_seen()

    def mark_seen(self) -> None:
        """From here on, only what is written later is a change; call it before the files are read."""
        self._look()
        self._next_look = self._clock.monotonic_seconds() + _LOOK_SECONDS

    def are_due(self) -> bool:
        """Whether a second is over since the last look: the cheap question, asked at every request."""
        return self._clock.monotonic_seconds() >= self._next_look

    def have_changed(self) -> bool:
        """Look now, if a second is over since the last look. What is seen counts as seen."""
        if not self.are_due():
            return False
        seen, was_fresh = self._seen, self._is_fresh
        self.mark_seen()
        return was_fresh or self._seen != seen

    def _look(self) -> None:
        self._seen = tuple(map(_mark, self._files))
        newest_ns = max((mark[1] for mark in self._seen), default=0)
        self._is_fresh = newest_ns > self._clock.now_ms() * 1_000_000 - _FRESH_NS


def _mark(file: Path) -> _Mark:
    try:
        found = file.stat()
    except OSError:
        return _MISSING
    return found.st_ino, found.st_mtime_ns, found.st_size
