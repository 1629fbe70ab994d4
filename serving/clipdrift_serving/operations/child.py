"""One worker of a supervisor. Its settings come over stdin, so that no secret is on a command line or in the environment; the
end of stdin is the end of the supervisor, and then the worker ends too."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from clipdrift_serving.config import ServingConfig
from clipdrift_serving.operations.worker import Worker

_GRACE_SECONDS = 5.0


class Start(msgspec.Struct, frozen=True):
    """What a supervisor tells a worker, as one line of JSON."""

    config: ServingConfig
    worker: Worker

    def to_line(self) -> bytes:
        return msgspec.json.encode(self, enc_hook=str) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Start":
        return msgspec.json.decode(line, type=cls, dec_hook=_decoded)


def _decoded(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"a setting of type {kind}")


def _end_with_supervisor(drain_seconds: float) -> None:
    """Waits, in a thread, for the end of stdin."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(drain_seconds + _GRACE_SECONDS)
    os._exit(1)  # what hangs must not hold the port


def main() -> None:
    """Read the settings, then serve until SIGTERM or the supervisor's end."""
    from clipdrift_serving.server import run  # noqa: PLC0415  heavy: the supervisor imports this module too

    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(0, 65536)
        if not read:
            return
        line += read
    start = Start.from_line(line)
    watch = threading.Thread(target=_end_with_supervisor, args=(start.config.drain_seconds,), name="supervisor", daemon=True)
    watch.start()
    run(start.config, worker=start.worker)


if __name__ == "__main__":
    main()
