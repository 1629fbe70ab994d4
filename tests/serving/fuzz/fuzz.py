"""Sends broken requests to a serving process for a while, and fails where it did not stand up to them.

    python tests/serving/fuzz/fuzz.py --seconds 600 --seed 1

It fails on an answer 5xx other than 503, on one that is no HTTP, on a connection that is left hanging, on a server that is
gone, on memory that grows, on a traceback or a warning in its log, and on an ordinary request that is not answered in a second.
`--only N` sends case N alone.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import select
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# ruff: noqa: E402
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from mutations import Case, Mutator
from serving_process import Process, wait_until
from toy_service import write_model

ANSWER_SECONDS = 1.0
_HANG_SECONDS = 10.0
_RUDE_SECONDS = 0.02
_MAX_TOLD = 20
_LIMITS = {
    "head_seconds": 2.0,
    "body_seconds": 2.0,
    "idle_seconds": 4.0,
    "send_seconds": 2.0,
    "max_spool_bytes": 256 * 1024 * 1024,
}
_LOG = "server.log"
_FAULTS = re.compile(r"(Traceback|Fatal error|Warning: ).*", re.DOTALL)
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+\r\n((?:[a-z-]+: [^\r\n]*\r\n)*)\r\n")
_LENGTH = re.compile(rb"^content-length: (\d+)\r$", re.MULTILINE)


class Failure(NamedTuple):
    number: int
    what: str


class Outcome(NamedTuple):
    """What a run came to."""

    num_cases: int
    statuses: dict[int, int]  # 0: closed without an answer
    failures: list[Failure]
    num_ordinary: int  # requests of the other client
    slowest_ordinary_seconds: float
    rss_before_mib: float
    rss_after_mib: float


def exchange(address: tuple[str, int], case: Case) -> tuple[bytes, bool]:
    """All that came back, and whether the server ended the connection."""
    got, queue = bytearray(), list(case.pieces)
    with socket.create_connection(address, 5) as connection:
        connection.setblocking(False)
        deadline = time.monotonic() + (_RUDE_SECONDS if case.is_rude else _HANG_SECONDS)
        while (left := deadline - time.monotonic()) > 0:
            readable, writable, _ = select.select([connection], [connection] if queue else [], [], left)
            try:
                if readable:
                    part = connection.recv(1 << 20)
                    if not part:
                        return bytes(got), True
                    got += part
                if writable:
                    _send_some(connection, queue, is_rude=case.is_rude)
            except OSError:
                return bytes(got), True
    return bytes(got), False


def _send_some(connection: socket.socket, queue: list[bytes], *, is_rude: bool) -> None:
    sent = connection.send(queue[0])
    queue[0] = queue[0][sent:]
    if not queue[0]:
        del queue[0]
    if not queue and not is_rude:
        connection.shutdown(socket.SHUT_WR)


def answers(got: bytes) -> Iterator[int]:
    """The status of each answer.

    Raises:
        ValueError: What came back is no row of HTTP answers. The last may be cut off.
    """
    position = 0
    while position < len(got):
        head = _HEAD.match(got, position)
        if head is None:
            if b"\r\n\r\n" in got[position:] or not b"HTTP/1.1 ".startswith(got[position : position + 9]):
                raise ValueError(f"no HTTP answer: {got[position : position + 200]!r}")
            return
        status, length = int(head[1]), _LENGTH.search(head[2])
        if length is None and status != 100:
            raise ValueError(f"an answer without a length: {got[position : position + 200]!r}")
        position = head.end()
        if length is not None and not got.startswith(b"HTTP/1.1 ", position):  # to HEAD, an answer has no body
            position += int(length[1])
        yield status


class Fuzzer:
    """Several connections that send cases, one client that asks ordinary things, and a look at the memory every second."""

    def __init__(
        self, server: Process, seed: int, max_growth_mib: float, num_threads: int = 4, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._server = server
        self._answer_seconds = answer_seconds
        self._log = server.folder / _LOG
        self._max_growth_mib = max_growth_mib
        self._num_threads = num_threads
        receipts = tuple(server.infer()[1]["parameters"]["receipts"][0] for _ in range(20))
        self._mutator = Mutator(seed, receipts)
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._statuses: collections.Counter[int] = collections.Counter()
        self._failures: list[Failure] = []
        self._ordinary: list[float] = []

    def run(self, seconds: float) -> Outcome:
        """Fuzz for so long, or until it is clear that the server is gone."""
        threads = [threading.Thread(target=self._send) for _ in range(self._num_threads)] + [threading.Thread(target=self._ask)]
        for thread in threads:
            thread.start()
        started = time.monotonic()
        settle_seconds = min(60.0, seconds / 3)
        looks: list[tuple[float, float]] = []
        while time.monotonic() - started < seconds and self._server.process.poll() is None:
            self._is_over.wait(0.5)
            looks.append((time.monotonic() - started, self._server.rss_mib()))
        self._is_over.set()
        for thread in threads:
            thread.join()
        # medians, since one large body more or less makes a peak
        before = statistics.median([mib for at, mib in looks if at <= settle_seconds])
        after = statistics.median([mib for at, mib in looks if at >= looks[-1][0] - settle_seconds / 2])
        self._finish(before, after)
        return Outcome(
            self._next, dict(self._statuses), self._failures, len(self._ordinary), max(self._ordinary), before, after
        )

    def only(self, number: int) -> bytes:
        """Send one case, and what came back."""
        return exchange(self._address(case := self._mutator.case(number)), case)[0]

    def _finish(self, before: float, after: float) -> None:
        if self._server.process.poll() is not None:
            self._failures.append(Failure(self._next, f"the server ended with {self._server.process.returncode}"))
            return
        if after - before > self._max_growth_mib:
            self._failures.append(Failure(self._next, f"memory grew from {before:.0f} to {after:.0f} MiB"))
        faults = self._server.metric('clipdrift_serving_requests_total{code="500"')
        if faults:
            self._failures.append(Failure(self._next, f"the server counts {faults:g} faults of its own"))
        found = _FAULTS.search(self._log.read_text(errors="replace"))
        if found is not None:
            self._failures.append(Failure(self._next, f"in the server's log: {found[0][:1000]}"))
        if self._server.infer()[0] != 200:
            self._failures.append(Failure(self._next, "the model does not answer any more"))

    def _address(self, case: Case) -> tuple[str, int]:
        return "127.0.0.1", self._server.admin_port if case.is_admin else self._server.port

    def _send(self) -> None:
        while not self._is_over.is_set():
            with self._lock:
                number, self._next = self._next, self._next + 1
            case = self._mutator.case(number)
            try:
                got, is_closed = exchange(self._address(case), case)
                statuses = list(answers(got)) or [0]
            except (OSError, ValueError) as error:
                self._fail(number, str(error))
                continue
            if not is_closed and not case.is_rude:
                self._fail(number, f"the connection hangs after {got[-200:]!r}")
            bad = [status for status in statuses if status >= 500 and status != 503]
            if bad:
                self._fail(number, f"{bad[0]}: {got[-200:]!r}")
            with self._lock:
                self._statuses.update(statuses)

    def _ask(self) -> None:
        """Another client, on its own connection each time."""
        while not self._is_over.is_set():
            started = time.monotonic()
            status, _ = self._server.infer()
            self._ordinary.append(time.monotonic() - started)
            if status != 200 or self._ordinary[-1] > self._answer_seconds:
                self._fail(self._next, f"an ordinary request got {status} after {self._ordinary[-1]:.2f} s")
            self._is_over.wait(0.05)

    def _fail(self, number: int, what: str) -> None:
        with self._lock:
            self._failures.append(Failure(number, what))
            is_told = len(self._failures) <= _MAX_TOLD
        if is_told:
            print(f"case {number}: {what}", flush=True)


@contextlib.contextmanager
def _errors_into(file: int) -> Iterator[None]:
    """What a process that is started meanwhile writes to standard error goes to the file."""
    own = os.dup(2)
    os.dup2(file, 2)
    try:
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Process]:
    """A process that serves the toy model, with deadlines short enough to be met."""
    server = Process(folder, **_LIMITS)
    with (folder / _LOG).open("wb") as log, _errors_into(log.fileno()):
        server.start()
    try:
        server.deploy(write_model(folder, "v1", 0.0), 1)
        wait_until(server.is_ready)
        yield server
    finally:
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long")
    parser.add_argument("--seed", type=int, default=1, help="which cases")
    parser.add_argument("--max-growth-mib", type=float, default=30.0, help="most memory gained after the first minute")
    parser.add_argument("--only", type=int, help="send this case alone, and print both sides")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        fuzzer = Fuzzer(server, given.seed, given.max_growth_mib)
        if given.only is not None:
            print(Mutator(given.seed, ()).case(given.only))
            print(fuzzer.only(given.only))
            return 0
        outcome = fuzzer.run(given.seconds)
    print(json.dumps(outcome._replace(failures=[one._asdict() for one in outcome.failures[:_MAX_TOLD]])._asdict()))
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
