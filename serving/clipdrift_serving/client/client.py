"""The client itself: builds requests, sends them, tries again where that can do no harm."""

import re
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Literal, NoReturn, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from clipdrift_serving.client.answers import Feedback, Prediction, RejectedLabel
from clipdrift_serving.client.errors import (
    RETRIED_STATUSES,
    AnswerError,
    InvalidRequestError,
    UnavailableError,
    UnknownModelError,
    error_of,
)
from clipdrift_serving.client.retrying import RetryConfig, delay_seconds, retry_after_seconds
from clipdrift_serving.client.tensors import as_entry, as_outputs, as_tensor, columns_of

_JSON_LENGTH = "inference-header-content-length"
_MAX_LABELS = 5_000  # in one request; some 250 bytes each, the server takes 4 MiB
_PART_BYTES = 2 * 1024 * 1024
_PART_LINES = 20_000  # the server takes 25,000 labels at once
_CONNECT_SECONDS = 5.0
_UPLOAD_TYPES = {".csv": "text/csv", ".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson"}
_API_KEY = re.compile(r"[!-~]+")
_Answer = TypeVar("_Answer")


class _Tensor(msgspec.Struct):
    name: str
    datatype: str


class _Metadata(msgspec.Struct):
    inputs: list[_Tensor]


class _Inferred(msgspec.Struct):
    model_name: str
    outputs: list[dict[str, Any]]
    model_version: str = ""
    id: str = ""
    parameters: dict[str, Any] = {}


class _Rejected(msgspec.Struct):
    reason: str
    index: int = -1
    line: int = -1
    message: str = ""


class _Labelled(msgspec.Struct):
    accepted: int
    rejected: list[_Rejected] = []
    num_rejected: int | None = None


class Client:
    """Asks a server for predictions and hands labels in. A context manager; threads may share one.

    A call is tried again when the server could not be reached, when the connection broke, and after 408, 429, 503 and 504, as
    long as `timeout_seconds` lasts. All tries of a prediction carry one request id, and a label counts once however often it is
    sent. What is wrong with a request is never tried again.

    Args:
        url: Of the server's data listener, such as `http://localhost:8080`.
        api_key: Sent as a bearer token to `url` alone; never shown.
        timeout_seconds: For what is asked of the server once, tries and waits together.
        tensors: How numbers travel: `binary` is the fastest, `json` can be read on the way.
        retry: How often to try, how long to wait.
        ca_file: Certificates that a TLS server may be signed by, instead of the system's.
        wait: Called with seconds to wait.
        random: Source of the spread of waits.

    Raises:
        ValueError: The address is not one of HTTP, or a number is out of range.

    Example:
        >>> client = Client("http://localhost:8080", api_key="secret")
        >>> client
        Client('http://localhost:8080')
        >>> client.close()
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 30.0,
        tensors: Literal["binary", "json"] = "binary",
        retry: RetryConfig | None = None,
        ca_file: Path | str | None = None,
        wait: Callable[[float], None] = time.sleep,
        random: Random | None = None,
    ) -> None:
        address = httpx.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError("url must be http://HOST[:PORT] or https://HOST[:PORT]")
        if address.userinfo:
            raise ValueError("url must not hold a name or a password; give api_key")
        if api_key is not None and not _API_KEY.fullmatch(api_key):
            raise ValueError("api_key must be printable ASCII without spaces")  # it must not be shown, also where it is wrong
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be > 0, got {timeout_seconds}")
        if tensors not in ("binary", "json"):
            raise ValueError(f"tensors must be 'binary' or 'json', got {tensors!r}")
        self.url = str(address).rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._is_binary = tensors == "binary"
        self._retry = retry or RetryConfig()
        self._wait = wait
        self._random = random or Random()  # noqa: S311  spreads waits; no secret
        self._datatypes: dict[str, dict[str, str]] = {}  # of the inputs, by a model's address
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        verify = ssl.create_default_context(cafile=str(ca_file)) if ca_file is not None else True
        # the environment's proxies and password files are for the web, and must not see the key
        self._http = httpx.Client(base_url=self.url, headers=headers, trust_env=False, verify=verify)

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def is_ready(self) -> bool:
        """Whether every model that was announced is in service; False also when the server does not answer."""
        with suppress(httpx.HTTPError):
            return self._http.get("/v2/health/ready", timeout=_CONNECT_SECONDS).status_code == 200
        return False

    def metadata(self, model: str, version: str | None = None) -> dict[str, Any]:
        """What the model takes and gives, as the server says it.

        Raises:
            ClientError: The server refused, or could not be reached.
        """
        return self._call("GET", _path(model, version), dict[str, Any])

    def predict(
        self,
        model: str,
        inputs: Any,
        *,
        version: str | None = None,
        request_id: str | None = None,
        key: str | None = None,
        event_time_ms: int | Sequence[int] | None = None,
    ) -> Prediction:
        """Ask for the predictions of some rows.

        Columns are cast to what the model takes where no value changes (floats may be rounded): Python numbers, numpy arrays,
        pandas and polars frames will do. A missing number is None or NaN.

        Args:
            model: Its name.
            inputs: Columns by name, a mapping or a data frame; all equally long, the first axis is the row.
            version: Ask this one; None: as the deployment routes it.
            request_id: Your own id of the request, so that labels can come back with it; None: the client makes one.
            key: Requests of one key get the same version while a canary runs (a customer's number, say).
            event_time_ms: When it happened, for all rows or each; counts where the server takes the request's time.

        Raises:
            InvalidRequestError: The inputs are wrong.
            ClientError: The server refused, or could not be reached.
        """
        path = _path(model, version)
        columns = columns_of(inputs)
        request_id = uuid.uuid4().hex if request_id is None else request_id
        parameters: dict[str, Any] = {"binary_data_output": True} if self._is_binary else {}
        if key is not None:
            parameters["key"] = key
        if event_time_ms is not None:
            parameters["event_time_ms"] = _plain(event_time_ms)
        datatypes = self._datatypes_of(path)
        entries, binary = [], []
        for name, column in columns.items():
            if name not in datatypes:
                raise InvalidRequestError(f"unknown input {name!r}; {model!r} takes {sorted(datatypes)}")
            entry, data = as_entry(name, as_tensor(name, column, datatypes[name]), datatypes[name], is_binary=self._is_binary)
            entries.append(entry)
            binary.append(data)
        body = _encode({"id": request_id, "inputs": entries, "parameters": parameters})
        headers = {"content-type": "application/json"}
        if self._is_binary:
            headers = {"content-type": "application/octet-stream", _JSON_LENGTH: str(len(body))}
        try:
            answer = self._send("POST", f"{path}/infer", b"".join((body, *binary)), headers)
        except InvalidRequestError:
            self._datatypes.pop(path, None)  # perhaps a new version takes other types: look again before the next call
            raise
        return _prediction(answer, request_id)

    def feedback(
        self, model: str, receipts: Sequence[str], labels: Any, *, label_times_ms: Sequence[int] | None = None
    ) -> Feedback:
        """Hand in what turned out to be true, each label with its receipt.

        A label counts once however often it is handed in, so a call that failed may be repeated as it was.

        Args:
            model: Its name (of a further watched output, `MODEL.OUTPUT`).
            receipts: One for each label.
            labels: Class names, class indices or numbers; a list or an array.
            label_times_ms: When each came to be known; None: now.

        Raises:
            InvalidRequestError: The lists differ in length, or the model is unknown.
            ClientError: The server refused, or could not be reached; labels before may have been accepted.
        """
        return self._feedback(model, {"receipts": receipts, "labels": labels, "label_times_ms": label_times_ms})

    def feedback_by_request(
        self,
        model: str,
        request_ids: Sequence[str],
        labels: Any,
        *,
        rows: Sequence[int] | None = None,
        label_times_ms: Sequence[int] | None = None,
    ) -> Feedback:
        """The same for labels that come with your own request ids instead of receipts, while the server remembers them.

        Args:
            rows: Which row of its request each label belongs to; None: the first.
        """
        fields = {"request_ids": request_ids, "rows": rows, "labels": labels, "label_times_ms": label_times_ms}
        return self._feedback(model, fields)

    def upload(self, model: str, path: Path | str, *, part_bytes: int = _PART_BYTES) -> Feedback:
        """Hand in the labels of a CSV or NDJSON file (`.csv`, `.ndjson`, `.jsonl`), in parts of bounded size.

        Columns: `label`, `receipt` or `request_id` (and `row`), `label_time` (ISO 8601 or milliseconds). May be repeated, as
        labels count once. Rejected lines are named by their number in the file.

        Raises:
            InvalidRequestError: The file's name or its columns are not ours.
            OSError: The file cannot be read.
            ClientError: The server refused, or could not be reached; parts before may have been accepted.
        """
        path = Path(path)
        content_type = _UPLOAD_TYPES.get(path.suffix.lower())
        if content_type is None:
            raise InvalidRequestError(f"the name of a file of labels ends in {sorted(_UPLOAD_TYPES)}, got {path.name!r}")
        answers = []
        for first_line, body in _parts(path, content_type == "text/csv", part_bytes):
            answer = self._call("POST", f"{_path(model)}/labels", _Labelled, body, content_type)
            answers.append((first_line, answer))
        return _summed(answers)

    # --- one call -----------------------------------------------------------------------------------------------------------

    def _datatypes_of(self, path: str) -> dict[str, str]:
        known = self._datatypes.get(path)
        if known is None:
            told = self._call("GET", path, _Metadata)
            known = self._datatypes[path] = {one.name: one.datatype for one in told.inputs}
        return known

    def _feedback(self, model: str, fields: Mapping[str, Any]) -> Feedback:
        given = {name: _plain(values) for name, values in fields.items() if values is not None}
        lengths = {name: len(values) for name, values in given.items()}
        if len(set(lengths.values())) != 1:
            raise InvalidRequestError(f"the lists must be equally long, got {lengths}")
        answers = []
        for start in range(0, len(given["labels"]), _MAX_LABELS):
            part = _encode({name: values[start : start + _MAX_LABELS] for name, values in given.items()})
            answers.append((start, self._call("POST", f"{_path(model)}/feedback", _Labelled, part)))
        return _summed(answers)

    def _call(
        self, method: str, path: str, kind: type[_Answer], body: bytes | None = None, content_type: str = "application/json"
    ) -> _Answer:
        response = self._send(method, path, body, {"content-type": content_type} if body is not None else {})
        return _decoded(response.content, kind)

    def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> httpx.Response:
        """One call with all its tries."""
        ends = time.monotonic() + self._timeout_seconds
        num_tries = 0
        while True:
            num_tries += 1
            left = max(ends - time.monotonic(), 0.001)
            timeout = httpx.Timeout(left, connect=min(left, _CONNECT_SECONDS))
            asked_for: float | None = None
            cause: httpx.TransportError | None = None
            try:
                response = self._http.request(method, path, content=body, headers=dict(headers), timeout=timeout)
            except httpx.TransportError as error:
                failure, cause = UnavailableError(f"{self.url} does not answer: {type(error).__name__}: {error}"), error
            except httpx.DecodingError as error:
                raise AnswerError(f"the answer is not packed as it says: {error}") from error
            else:
                if response.is_success:
                    return response
                if response.status_code not in RETRIED_STATUSES:
                    _refuse(response)
                failure = UnavailableError(_message(response), response.status_code)
                asked_for = retry_after_seconds(response.headers.get("retry-after"), datetime.now(UTC))
            delay = delay_seconds(self._retry, num_tries, asked_for, self._random)
            if num_tries >= self._retry.max_tries or time.monotonic() + delay >= ends:
                raise failure from cause
            self._wait(delay)


def _path(model: str, version: str | None = None) -> str:
    if not model:
        raise UnknownModelError("a model's name is not empty")
    path = f"/v2/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{quote(version, safe='')}"


def _plain(values: Any) -> Any:
    """A list of what an array, a series or a sequence holds; a number stays one."""
    for name in ("tolist", "to_list"):
        if hasattr(values, name):
            return getattr(values, name)()
    return list(values) if isinstance(values, Sequence) and not isinstance(values, str) else values


def _encode(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value, enc_hook=_plain_scalar)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequestError(f"a value cannot be sent: {error}") from error


def _plain_scalar(value: Any) -> Any:
    """What a numpy scalar holds."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is neither a word nor a number")


def _decoded(body: bytes, kind: type[_Answer]) -> _Answer:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AnswerError(f"the answer is not one of the protocol: {error}") from error


def _prediction(response: httpx.Response, request_id: str) -> Prediction:
    length = response.headers.get(_JSON_LENGTH)
    body = response.content
    if length is not None and not (length.isdigit() and int(length) <= len(body)):
        raise AnswerError(f"{_JSON_LENGTH} of the answer must be 0..{len(body)}, got {length[:20]!r}")
    split = len(body) if length is None else int(length)
    answer = _decoded(body[:split], _Inferred)
    told = answer.parameters
    try:
        return Prediction(
            model=answer.model_name,
            version=answer.model_version,
            role=str(told.get("role", "champion")),
            generation=int(told.get("generation", 0)),
            request_id=answer.id or request_id,
            outputs=as_outputs(answer.outputs, body[split:]),
            receipts=tuple(told.get("receipts", ())),
            more_receipts={name: tuple(tokens) for name, tokens in told.get("more_receipts", {}).items()},
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise AnswerError(f"the answer's parameters are not ours: {error}") from error


def _summed(answers: Sequence[tuple[int, _Labelled]]) -> Feedback:
    rejected = tuple(
        RejectedLabel(index=start + max(one.index, one.line), reason=one.reason, message=one.message)
        for start, answer in answers
        for one in answer.rejected
    )
    num_rejected = sum(len(one.rejected) if one.num_rejected is None else one.num_rejected for _, one in answers)
    return Feedback(num_accepted=sum(one.accepted for _, one in answers), rejected=rejected, num_rejected=num_rejected)


def _parts(path: Path, has_columns: bool, part_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Bodies of whole lines, each with the line of column names, and what to add to a body's line numbers for the file's."""
    with path.open("rb") as file:
        columns = file.readline() if has_columns else b""
        part, size, number, first = [columns], len(columns), int(has_columns), 0
        for line in file:
            is_full = size + len(line) > part_bytes or len(part) > _PART_LINES
            if is_full and len(part) > 1:
                yield first, b"".join(part)
                part, size, first = [columns], len(columns), number - int(has_columns)
            part.append(line)
            size += len(line)
            number += 1
        yield first, b"".join(part)


def _refuse(response: httpx.Response) -> NoReturn:
    if response.is_redirect or response.is_informational:
        raise AnswerError(f"the server answered {response.status_code}, which is not of the protocol", response.status_code)
    raise error_of(response.status_code, _message(response))


def _message(response: httpx.Response) -> str:
    try:
        words = msgspec.json.decode(response.content, type=dict[str, Any])["error"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
        words = response.text[:200] or "no words"
    return f"{response.status_code}: {words}"
