"""Files that several processes share: written whole or not at all, and locked by the kernel."""

import fcntl
import os
from pathlib import Path


def write_whole(path: Path, data: bytes, partial: Path | None = None) -> None:
    """Write so that a reader sees all of it or nothing, also after a crash. What cannot be written leaves no file.

    Args:
        path: The file.
        data: Its content.
        partial: Where it is written first; beside `path` and named by the process when not given.
    """
    first = partial if partial is not None else path.with_suffix(f".partial-{os.getpid()}")
    try:
        with first.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        first.replace(path)
    except BaseException:
        first.unlink(missing_ok=True)
        raise


def lock_file(path: Path) -> int | None:
    """A descriptor that holds the lock on `path` until it is closed or its process dies; None where another process holds it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lock"
        >>> held = lock_file(path)
        >>> held is not None, lock_file(path)
        (True, None)
        >>> os.close(held)
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle
