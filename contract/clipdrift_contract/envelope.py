"""CloudEvents 1.0 in Kafka's binary mode: attributes as `ce_` headers, the event itself as the record's value.

Source: CloudEvents Kafka Protocol Binding 1.0.2, section 3.2.
"""

import itertools
import os
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec

from clipdrift_contract import events
from clipdrift_contract.errors import PoisonError
from clipdrift_contract.events import Event

ContentType = Literal["application/msgpack", "application/json"]
MSGPACK: ContentType = "application/msgpack"
JSON: ContentType = "application/json"
TYPE_PREFIX = "io.clipdrift."

_EVENT_TYPES: dict[str, type[Any]] = {TYPE_PREFIX + kind.__name__: kind for kind in get_args(Event)}
_encode_msgpack = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_decode_msgpack = {name: msgspec.msgpack.Decoder(kind) for name, kind in _EVENT_TYPES.items()}
_decode_json = {name: msgspec.json.Decoder(kind) for name, kind in _EVENT_TYPES.items()}


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The CloudEvents attributes of one event."""

    id: str
    source: str
    type: str
    time_ms: int
    subject: str = ""
    content_type: str = MSGPACK


class IdSource:
    """Event ids that are unique for ever and cost 0.1 µs: a random prefix for this life, then a counter.

    Example:
        >>> ids = IdSource(prefix="a1")
        >>> ids.next(), ids.next()
        ('a1-0', 'a1-1')
    """

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = prefix if prefix is not None else os.urandom(8).hex()
        self._counter = itertools.count()

    def next(self) -> str:
        return f"{self.prefix}-{next(self._counter)}"


def encode(
    event: Event, *, event_id: str, source: str, time_ms: int, content_type: ContentType = MSGPACK
) -> tuple[dict[str, bytes], bytes]:
    """Headers and value of the record that carries `event`.

    Example:
        >>> from clipdrift_contract.events import Deployment, ServedVersion
        >>> served = ServedVersion(version="1", uri="file:///m.onnx", digest="sha256:0")
        >>> headers, value = encode(Deployment(model="m", generation=1, champion=served, decided_at_ms=0),
        ...                         event_id="a-0", source="monitor", time_ms=0)
        >>> headers["ce_type"], decode(headers, value)[1].generation
        (b'io.clipdrift.Deployment', 1)
    """
    headers = {
        "ce_specversion": b"1.0",
        "ce_id": event_id.encode(),
        "ce_source": source.encode(),
        "ce_type": (TYPE_PREFIX + type(event).__name__).encode(),
        "ce_time": _timestamp(time_ms).encode(),
        "ce_subject": event.model.encode(),
        "content-type": content_type.encode(),
    }
    return headers, _encode_json(event) if content_type == JSON else _encode_msgpack(event)


def decode(headers: dict[str, bytes], value: bytes) -> tuple[Envelope, Event]:
    """The envelope and the event of one record.

    Raises:
        PoisonError: An attribute is missing, the type is unknown, or the value does not fit the type.
    """
    try:
        envelope = Envelope(
            id=headers["ce_id"].decode(),
            source=headers["ce_source"].decode(),
            type=headers["ce_type"].decode(),
            time_ms=_milliseconds(headers["ce_time"].decode()),
            subject=headers.get("ce_subject", b"").decode(),
            content_type=headers.get("content-type", MSGPACK.encode()).decode(),
        )
    except KeyError as error:
        raise PoisonError(f"record has no header {error.args[0]!r}") from error
    except (ValueError, OverflowError) as error:
        raise PoisonError(f"record has an unreadable header: {error}") from error
    decoders: dict[str, Any] = {MSGPACK: _decode_msgpack, JSON: _decode_json}
    if envelope.content_type not in decoders:
        raise PoisonError(f"content-type must be {MSGPACK} or {JSON}, got {envelope.content_type!r}")
    if envelope.type not in _EVENT_TYPES:
        raise PoisonError(f"unknown event type {envelope.type!r}; known: {', '.join(sorted(_EVENT_TYPES))}")
    try:
        event = decoders[envelope.content_type][envelope.type].decode(value)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # ValueError: a string that is no UTF-8
        raise PoisonError(f"{envelope.type} does not parse: {error}") from error
    return envelope, event


def topic_of(event: Event) -> str:
    """The topic that carries events of this type."""
    return events.TOPIC_OF[type(event)]


def _timestamp(time_ms: int) -> str:
    """RFC 3339 with milliseconds, as CloudEvents asks for."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _milliseconds(timestamp: str) -> int:
    moment = datetime.fromisoformat(timestamp)
    if moment.tzinfo is None:
        raise ValueError(f"ce_time needs an offset from UTC, got {timestamp!r}")
    return round(moment.timestamp() * 1000)
