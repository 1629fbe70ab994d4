"""Predictions of a model that is served elsewhere: what KServe's payload logger sends becomes inputs and outputs by name.

The logger sends each request and each answer as a CloudEvent of its own; both carry the same id. Here they are read and paired.

Source: KServe pkg/logger (types, attributes, binary mode), CloudEvents 1.0 HTTP binding and JSON format, KServe V1 protocol.
"""

import json
import re
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

import msgspec
import numpy as np
import orjson

from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.tensors import Tensor
from clipdrift_serving.rest.codec import decode_infer
from clipdrift_serving.rest.logged_form import LoggedForm
from clipdrift_serving.rest.uploads import time_ms

Kind = Literal["request", "response"]
TYPES: dict[str, Kind] = {
    "org.kubeflow.serving.inference.request": "request",
    "org.kubeflow.serving.inference.response": "response",
}
_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch+json"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # as of models that are served here: it stands in addresses and receipts
_MAX_ID = 256
_MAX_HEAD = 1024 * 1024  # bytes of JSON before binary tensors, where nobody says how many they are
_MAX_DEPTH = 8  # of nested lists, as of tensors
_NO_VERSION = "default"


class LoggedMessage(NamedTuple):
    """A request or an answer, as it was logged."""

    kind: Kind
    id: str  # the same for a request and its answer
    model: str
    version: str  # of an answer that says it, else the endpoint; "" where neither is known
    namespace: str
    component: str  # predictor, transformer or explainer: each logs its own requests
    time_ms: int | None
    request_id: str  # the caller's own, where the payload has one, else the id
    tensors: dict[str, Tensor]
    num_bytes: int


class LoggedPrediction(NamedTuple):
    """A request with its answer. Floats come as FP64 where the payload was V1, whole numbers as INT64, words as objects."""

    model: str
    version: str
    namespace: str
    id: str
    request_id: str
    event_time_ms: int | None  # when it was asked; None: nobody says
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    num_rows: int


class _Event(msgspec.Struct):
    """Attributes of an event, whatever mode it came in."""

    type: str
    id: str
    inferenceservicename: str = ""
    namespace: str = ""
    component: str = ""
    endpoint: str = ""
    time: str = ""
    metadata: str = ""  # JSON of the request's headers that the logger was told to keep
    data: msgspec.Raw = msgspec.Raw()
    data_base64: str | None = None


class _V2Answer(msgspec.Struct):
    outputs: msgspec.Raw
    model_name: str = ""
    model_version: str | None = None
    id: str = ""


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_events = msgspec.json.Decoder(list[_Event]).decode
_decode_answer = msgspec.json.Decoder(_V2Answer).decode
_JSON_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_logged(
    headers: Mapping[bytes, bytes], body: bytes, forms: Mapping[str, LoggedForm] | None = None
) -> list[LoggedMessage]:
    """The logged messages of a body: one in binary and structured mode, any number in batch mode.

    Args:
        headers: Names in lower case.
        body: The whole body, unpacked.
        forms: How the V1 payloads of some models are named, by model.

    Raises:
        RequestError: What is wrong with it, in words; nothing of a batch counts then.

    Example:
        >>> headers = {b"ce-id": b"7", b"ce-inferenceservicename": b"pump"}
        >>> headers[b"ce-type"] = b"org.kubeflow.serving.inference.request"
        >>> message, = decode_logged(headers, b'{"instances": [{"pressure": 4.1}, {"pressure": 3.9}]}')
        >>> message.kind, message.tensors["pressure"].tolist()
        ('request', [4.1, 3.9])
    """
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    try:
        if kind == _BATCH:
            events = _decode_events(body)
        elif kind == _STRUCTURED:
            events = [_decode_event(body)]
        else:
            return [_message(_of_headers(headers), body, forms or {})]
    except _JSON_FAULTS as error:
        raise RequestError("bad_input", f"the body is no CloudEvent: {error}") from error
    return [_message(event, _data(event), forms or {}) for event in events]


class Pairing:
    """Brings requests and their answers together, in whatever order they come. Bounded; one thread only.

    What has waited too long, or longest when there is no room, is given up and counted. A message that comes again is ignored,
    also for a while after its pair was found.

    Args:
        max_waiting: Messages that may wait for their counterpart, and pairs that are remembered.
        max_bytes: Bytes of payloads that may wait.
        max_age_seconds: How long a message waits, and a pair is remembered.

    Example:
        >>> pairing = Pairing()
        >>> headers = {b"ce-id": b"7", b"ce-inferenceservicename": b"pump"}
        >>> request = headers | {b"ce-type": b"org.kubeflow.serving.inference.request"}
        >>> response = headers | {b"ce-type": b"org.kubeflow.serving.inference.response"}
        >>> pairing.add(decode_logged(request, b'{"instances": [{"pressure": 4.1}]}')[0], now_seconds=0.0)
        >>> pairing.add(decode_logged(response, b'{"predictions": [[0.1, 0.9]]}')[0], now_seconds=0.1).outputs
        {'output-0': array([[0.1, 0.9]])}
    """

    def __init__(self, max_waiting: int = 10_000, max_bytes: int = 64 * 1024 * 1024, max_age_seconds: float = 300.0) -> None:
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._waiting: OrderedDict[_Key, tuple[float, LoggedMessage]] = OrderedDict()  # the oldest first
        self._found: OrderedDict[_Key, float] = OrderedDict()
        self.num_waiting_bytes = 0
        self.num_paired = 0
        self.num_repeated = 0
        self.num_misfits = 0  # pairs whose halves do not belong together
        self.num_given_up = {"age": 0, "room": 0}

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def add(self, message: LoggedMessage, now_seconds: float) -> LoggedPrediction | None:
        """The prediction, when this message was the half that was missing.

        Args:
            message: The next one.
            now_seconds: A clock that never goes back.

        Raises:
            RequestError: The two halves do not belong together; both are given up.
        """
        self.expire(now_seconds)
        key = (message.namespace, message.model, message.component, message.id)
        waiting = self._waiting.get(key)
        if key in self._found or (waiting is not None and waiting[1].kind == message.kind):
            self.num_repeated += 1
            return None
        if waiting is None:
            self._waiting[key] = (now_seconds, message)
            self.num_waiting_bytes += message.num_bytes
            while len(self._waiting) > self._max_waiting or self.num_waiting_bytes > self._max_bytes:
                self._give_up("room")
            return None
        del self._waiting[key]
        self.num_waiting_bytes -= waiting[1].num_bytes
        self._found[key] = now_seconds
        if len(self._found) > self._max_waiting:
            self._found.popitem(last=False)
        request, answer = (waiting[1], message) if message.kind == "response" else (message, waiting[1])
        try:
            prediction = _joined(request, answer)
        except RequestError:
            self.num_misfits += 1
            raise
        self.num_paired += 1
        return prediction

    def expire(self, now_seconds: float) -> None:
        """Give up what has waited too long; also called by `add`."""
        oldest = now_seconds - self._max_age_seconds
        while self._waiting and next(iter(self._waiting.values()))[0] < oldest:
            self._give_up("age")
        while self._found and next(iter(self._found.values())) < oldest:
            self._found.popitem(last=False)

    def _give_up(self, reason: Literal["age", "room"]) -> None:
        _, (_, message) = self._waiting.popitem(last=False)
        self.num_waiting_bytes -= message.num_bytes
        self.num_given_up[reason] += 1


_Key = tuple[str, str, str, str]


def _joined(request: LoggedMessage, answer: LoggedMessage) -> LoggedPrediction:
    counts = {name: len(tensor) for name, tensor in (*request.tensors.items(), *answer.tensors.items())}
    if len(set(counts.values())) != 1:
        raise RequestError("bad_input", f"request and answer {request.id!r} differ in their number of rows: {counts}")
    return LoggedPrediction(
        model=request.model,
        version=answer.version or request.version or _NO_VERSION,
        namespace=request.namespace,
        id=request.id,
        request_id=request.request_id,
        event_time_ms=request.time_ms if request.time_ms is not None else answer.time_ms,
        inputs=request.tensors,
        outputs=answer.tensors,
        num_rows=next(iter(counts.values())),
    )


# --- the event --------------------------------------------------------------------------------------------------------------


def _of_headers(headers: Mapping[bytes, bytes]) -> _Event:
    """Binary mode: each attribute is a header, percent-encoded where it holds more than printable ASCII."""
    values = {name: unquote(headers.get(b"ce-" + name.encode(), b"").decode("latin-1")) for name in _ATTRIBUTES}
    if not values["type"] or not values["id"]:
        raise RequestError(
            "bad_input", f"a logged message has the headers Ce-Type and Ce-Id, or the content-type {_STRUCTURED} or {_BATCH}"
        )
    return msgspec.convert(values, _Event)


_ATTRIBUTES = tuple(name for name in _Event.__struct_fields__ if not name.startswith("data"))


def _data(event: _Event) -> bytes:
    """The payload of an event in the JSON format: a JSON value, a string that holds what is no JSON by its type, or base64."""
    try:
        if event.data_base64 is not None:
            return b64decode(event.data_base64, validate=True)
        raw = bytes(event.data)
        return msgspec.json.decode(raw, type=str).encode() if raw.startswith(b'"') else raw
    except (ValueError, *_JSON_FAULTS) as error:
        raise RequestError("bad_input", f"event {event.id[:50]!r}: its data cannot be read: {error}") from error


def _message(event: _Event, body: bytes, forms: Mapping[str, LoggedForm]) -> LoggedMessage:
    kind = TYPES.get(event.type)
    if kind is None:
        raise RequestError("bad_input", f"a logged message has a type of {sorted(TYPES)}, got {event.type[:80]!r}")
    if not 0 < len(event.id) <= _MAX_ID:
        raise RequestError("bad_input", f"the id of an event has 1 to {_MAX_ID} characters, got {len(event.id)}")
    if not _NAME.fullmatch(event.inferenceservicename):
        given = event.inferenceservicename[:80]
        raise RequestError("bad_input", f"inferenceservicename is 1 to 64 of A-Z a-z 0-9 _ . -, got {given!r}")
    try:
        when = time_ms(event.time) if event.time else None
    except ValueError as error:
        raise RequestError("bad_input", f"event {event.id[:50]!r}: {error}") from error
    form = forms.get(event.inferenceservicename, LoggedForm())
    payload = _request(event, body, form) if kind == "request" else _response(body, form)
    version = payload.version or event.endpoint
    if version and not _NAME.fullmatch(version):
        raise RequestError("bad_input", f"a version is 1 to 64 of A-Z a-z 0-9 _ . -, got {version[:80]!r}")
    return LoggedMessage(
        kind, event.id, event.inferenceservicename, version, event.namespace, event.component, when,
        payload.request_id or event.id, payload.tensors, len(body),
    )  # fmt: skip


# --- the payload ------------------------------------------------------------------------------------------------------------


class _Payload(NamedTuple):
    tensors: dict[str, Tensor]
    version: str = ""
    request_id: str = ""


def _request(event: _Event, body: bytes, form: LoggedForm) -> _Payload:
    told = _told_length(event.metadata)
    split = _end_of_json(body) if told is None else told
    top = _object(body[:split])
    if "inputs" in top:
        request, tensors = decode_infer(body, str(split))
        return _Payload(_named(tensors, "inputs"), request_id=request.id)
    if "instances" not in top:
        raise RequestError("bad_input", f"a logged request has inputs (V2) or instances (V1), got {sorted(top)[:10]}")
    return _Payload(_of_v1("instances", top["instances"], form.input_name, form.columns))


def _response(body: bytes, form: LoggedForm) -> _Payload:
    split = _end_of_json(body)
    top = _object(body[:split])
    if "outputs" in top:
        try:
            answer = _decode_answer(body[:split])
        except _JSON_FAULTS as error:
            raise RequestError("bad_input", f"the logged answer is not valid: {error}") from error
        head = b'{"inputs":' + bytes(answer.outputs) + b"}"  # an output is described as an input is
        _, tensors = decode_infer(head + body[split:], str(len(head)))
        return _Payload(_named(tensors, "outputs"), answer.model_version or "", answer.id)
    if "predictions" not in top:
        raise RequestError("bad_input", f"a logged answer has outputs (V2) or predictions (V1), got {sorted(top)[:10]}")
    return _Payload(_of_v1("predictions", top["predictions"], form.output_name, ()))


def _named(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    if not tensors:
        raise RequestError("bad_input", f"the logged {kind} are empty")
    return tensors


def _told_length(metadata: str) -> int | None:
    """Where the JSON of a request ends, when the logger was told to keep the header that says it."""
    if not metadata:
        return None
    try:
        values = {name.lower(): value for name, value in msgspec.json.decode(metadata, type=dict[str, list[str]]).items()}
        told = values.get("inference-header-content-length")
        return int(told[0]) if told else None
    except (ValueError, IndexError, *_JSON_FAULTS):
        return None  # of no use; the payload says where its JSON ends too


def _end_of_json(body: bytes) -> int:
    """Where the JSON at the beginning ends: behind it stand binary tensors, and the log does not say how long they are."""
    if body.rstrip().endswith(b"}"):
        try:
            orjson.loads(body)
        except orjson.JSONDecodeError:
            pass  # the last byte of a tensor looks like it
        else:
            return len(body)
    try:
        _, end = json.JSONDecoder().raw_decode(body[:_MAX_HEAD].decode("latin-1"))
    except (ValueError, RecursionError) as error:
        raise RequestError("bad_input", f"the payload does not begin with JSON: {error}") from error
    return end


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError("bad_input", f"the payload is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise RequestError("bad_input", f"the payload is a JSON object, got {type(value).__name__}")
    return value


def _of_v1(kind: str, rows: Any, name: str, columns: Sequence[str]) -> dict[str, Tensor]:
    """Rows of the V1 protocol as tensors by name."""
    if not isinstance(rows, list) or not rows:
        raise RequestError("bad_input", f"{kind} must be a list of at least one row")
    kinds = {dict if isinstance(row, dict) else list if isinstance(row, list) else object for row in rows}
    if len(kinds) > 1:
        raise RequestError("bad_input", f"{kind} mix objects, lists and single values")
    if kinds == {dict}:
        return _of_objects(kind, rows)
    if columns:
        width = len(columns)
        if kinds != {list} or any(len(row) != width for row in rows):
            raise RequestError("bad_input", f"a row of {kind} must be a list of {width} values: {list(columns)}")
        return {column: _array(column, [row[index] for row in rows]) for index, column in enumerate(columns)}
    return {name: _array(name, rows)}


def _of_objects(kind: str, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """One tensor a key. A key that some rows leave out is null there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    num_given = sum(map(len, rows))
    if len(names) * len(rows) > 4 * num_given:  # else a small body of keys that are all different would fill the memory
        raise RequestError(
            "bad_input", f"rows of {kind} differ too much in their names: {len(names)} names in {len(rows)} rows"
        )
    if not names:
        raise RequestError("bad_input", f"rows of {kind} are empty")
    return {name: _array(name, [row.get(name) for row in rows]) for name in names}


def _array(name: str, rows: list[Any]) -> Tensor:
    """Values of rows as one tensor: BOOL, INT64, FP64 (null is NaN) or words (null is the empty one)."""
    shape = _shape(rows)
    values = rows
    for _ in shape[1:]:
        if not all(isinstance(part, list) for part in values):
            raise RequestError("bad_input", f"{name[:100]!r} mixes lists and values")
        values = [value for part in values for value in part]
    kinds = set(map(type, values)) - {type(None)}
    dtype = next((dtype for allowed, dtype in _DTYPES if kinds <= allowed), None)
    if dtype is None or np.prod(shape) != len(values):
        given = sorted(one.__name__ for one in kinds)
        raise RequestError("bad_input", f"{name[:100]!r} must hold rows of one shape, and words or numbers alone, got {given}")
    has_null = len(values) > 0 and any(value is None for value in values)
    if dtype is object:
        return np.array(["" if value is None else value for value in values], object).reshape(shape)
    try:
        return np.array(values, np.float64 if has_null else dtype).reshape(shape)
    except (OverflowError, ValueError) as error:
        raise RequestError("bad_input", f"{name[:100]!r}: a number is too large") from error


_DTYPES: tuple[tuple[set[type], Any], ...] = (
    ({bool}, np.bool_), ({int}, np.int64), ({int, float}, np.float64), ({str}, object),
)  # fmt: skip


def _shape(rows: Any) -> list[int]:
    shape: list[int] = []
    while isinstance(rows, list) and len(shape) < _MAX_DEPTH:
        if not rows:
            raise RequestError("bad_input", "a logged list is empty")
        shape.append(len(rows))
        rows = rows[0]
    return shape
