"""The monitor as a job sees it. Every call may be repeated: whatever the network does to one, it is done once."""

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import RetrainOutcome, RetrainRequest, RunEnd
from clipdrift_contract.version_files import sha256_of

T = TypeVar("T")
_TIMEOUT_SECONDS = 60.0
_PATIENCE_SECONDS = 900.0  # an upgrade of the monitor must not cost a retrain
_MAX_PAUSE_SECONDS = 30.0
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_CHUNK_BYTES = 1 << 20


class MonitorRefusal(ClipdriftError):  # noqa: N818  it is what the monitor said, and ends the job
    """The monitor refused, or did not answer for long; the message says what to do."""


class NotOursError(ClipdriftError):
    """The retrain is another run's, or over: there is nothing to do, and nothing is wrong."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """An order that is this run's."""

    request: RetrainRequest
    attempt: int
    beat_seconds: float


class VersionFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a version, as the monitor has it."""

    name: str
    num_bytes: int
    sha256: str


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an outcome decides, and why not."""

    is_taken: bool
    words: str


class _Files(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[VersionFile, ...]


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    uri: str


class JobClient:
    """What a run asks of the monitor and tells it. A context manager; may be used from two threads.

    Args:
        url: The monitor's address.
        token: An API key of the scope `report`, or the project's token.
        run: Who claims.
        transport: In place of the network, for tests.
        pause: Waits so many seconds.
    """

    def __init__(
        self,
        url: str,
        token: str,
        run: str,
        *,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self.run = run
        self._pause = pause
        self._http = httpx.Client(
            base_url=self.url, headers={"authorization": f"Bearer {token}"}, timeout=_TIMEOUT_SECONDS, transport=transport
        )

    def __enter__(self) -> "JobClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def claim(self, key: str, attempt: int, run_url: str) -> Claimed:
        """Make the order this run's.

        Raises:
            NotOursError: Another run has it, or it is over.
            MonitorRefusal: There is no such order, or the token is not good.
        """
        return self._tell(f"{_order(key)}/claim", {"run": self.run, "url": run_url, "attempt": attempt}, Claimed)

    def beat(self, key: str) -> None:
        """Say that the run lives; asked once, the next beat follows soon.

        Raises:
            NotOursError: It is to stop.
            MonitorRefusal: The monitor was not reached, or refused.
        """
        self._checked(self._send("POST", f"{_order(key)}/beat", json={"run": self.run}))

    def report(self, key: str, outcome: RetrainOutcome, run_end: RunEnd | None) -> Taken:
        """Tell what was found.

        Raises:
            MonitorRefusal: It cannot be taken as it is.
        """
        try:
            return self._tell(f"{_order(key)}/outcome", {"run": self.run, "outcome": outcome, "run_end": run_end}, Taken)
        except NotOursError as error:  # what comes too late is answered with 200
            raise MonitorRefusal(f"the monitor does not take the outcome: {error}") from error

    def files_of(self, model: str, version: str) -> tuple[VersionFile, ...]:
        """The files of a version that the monitor knows."""
        answer = self._insist(lambda: self._send("GET", _version(model, version)))
        return _read(answer, _Files).items

    def fetch(self, model: str, version: str, file: VersionFile, path: Path) -> None:
        """Write a file of a version to `path`, whole or not at all.

        Raises:
            MonitorRefusal: What came is not what was named.
        """
        self._insist(lambda: self._fetch(f"{_version(model, version)}/{quote(file.name, safe='')}", file, path))

    def store(self, key: str, version: str, path: Path) -> str:
        """Hand in a file of the candidate; returns its address at the monitor."""
        digest = base64.b64encode(bytes.fromhex(sha256_of(path))).decode()
        query = f"run={quote(self.run, safe='')}&version={quote(version, safe='')}"
        address = f"{_order(key)}/files/{quote(path.name, safe='')}?{query}"
        headers = {"content-digest": f"sha-256=:{digest}:", "content-length": str(path.stat().st_size)}
        answer = self._insist(lambda: self._send("PUT", address, content=_chunks(path), headers=headers))
        return _read(answer, _Stored).uri

    def _tell(self, path: str, body: dict[str, Any], kind: type[T]) -> T:
        content = msgspec.json.encode(body)
        headers = {"content-type": "application/json"}
        return _read(self._insist(lambda: self._send("POST", path, content=content, headers=headers)), kind)

    def _fetch(self, address: str, file: VersionFile, path: Path) -> httpx.Response:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        told = hashlib.sha256()
        try:
            with self._http.stream("GET", address) as answer, partial.open("wb") as copy:
                if answer.is_error:
                    answer.read()
                    return answer
                for chunk in answer.iter_bytes(_CHUNK_BYTES):
                    told.update(chunk)
                    copy.write(chunk)
            if told.hexdigest() != file.sha256:
                raise MonitorRefusal(
                    f"{file.name} came with the digest {told.hexdigest()}, the monitor had named {file.sha256}: it was changed "
                    "on the way or on its disk; nothing was trained"
                )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return answer

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self._http.request(method, path, **request)

    def _insist(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        """Ask until there is an answer that asking again would not change, or patience ends."""
        waited, pause = 0.0, 1.0
        while True:
            try:
                answer = ask()
                trouble = f"status {answer.status_code}: {_words_of(answer)}" if answer.status_code in _AGAIN else ""
            except httpx.TransportError as error:
                trouble = f"{type(error).__name__}: {error}"
            if not trouble:
                return self._checked(answer)
            if waited >= _PATIENCE_SECONDS:
                raise MonitorRefusal(f"the monitor at {self.url} does not answer ({trouble}); is it up, and reached from here?")
            self._pause(pause)
            waited, pause = waited + pause, min(2 * pause, _MAX_PAUSE_SECONDS)

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.status_code == 409:
            raise NotOursError(_words_of(answer))
        if answer.is_error:
            raise MonitorRefusal(f"the monitor refused ({answer.status_code}): {_words_of(answer)}{_advice(answer)}")
        return answer


def _order(key: str) -> str:
    return f"/api/v1/retrains/{quote(key, safe='')}"


def _version(model: str, version: str) -> str:
    return f"/api/v1/models/{quote(model, safe='')}/versions/{quote(version, safe='')}/files"


def _read(answer: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except msgspec.DecodeError as error:
        raise MonitorRefusal(f"what answers at {answer.url.copy_with(query=None)} is no Clipdrift monitor: {error}") from error


def _words_of(answer: httpx.Response) -> str:
    try:
        body = answer.json()
    except ValueError:
        body = None
    words = body.get("error") if isinstance(body, dict) else None
    return str(words or answer.text.strip()[:200] or "without a word")


def _advice(answer: httpx.Response) -> str:
    if answer.status_code in (401, 403):
        return "; CLIPDRIFT_API_TOKEN must be a key of the scope report: `clipdrift key ci --scope report`"
    return ""


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
