"""CloudEvents in Kafka's binary mode; whatever a record holds, reading it gives an event or a PoisonError."""

from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from write_golden import EVENT_TYPES, example

from clipdrift_contract.envelope import JSON, MSGPACK, TYPE_PREFIX, IdSource, decode, encode
from clipdrift_contract.errors import PoisonError
from clipdrift_contract.events import Deployment

AT_MS = 1_362_736_800_123


def record(content_type=MSGPACK):
    return encode(example(Deployment), event_id="a-0", source="monitor", time_ms=AT_MS, content_type=content_type)


@pytest.mark.parametrize("content_type", [MSGPACK, JSON])
@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_what_is_encoded_is_decoded(kind, content_type):
    headers, value = encode(example(kind), event_id="a-0", source="test", time_ms=AT_MS, content_type=content_type)
    envelope, event = decode(headers, value)
    assert event == example(kind)
    assert (envelope.id, envelope.source, envelope.time_ms, envelope.subject) == ("a-0", "test", AT_MS, event.model)


def test_headers_are_those_of_the_cloudevents_kafka_binding():
    headers, _ = record()
    required = {"ce_specversion", "ce_id", "ce_source", "ce_type"}  # CloudEvents 1.0.2, "required attributes"
    assert required <= set(headers)
    assert headers["ce_specversion"] == b"1.0"
    assert headers["content-type"] == b"application/msgpack"
    parsed = datetime.fromisoformat(headers["ce_time"].decode())
    assert parsed.tzinfo is not None
    assert round(parsed.timestamp() * 1000) == AT_MS


@pytest.mark.parametrize("name", ["ce_id", "ce_source", "ce_type", "ce_time"])
def test_a_missing_attribute_is_poison_and_is_named(name):
    headers, value = record()
    del headers[name]
    with pytest.raises(PoisonError, match=f"no header '{name}'"):
        decode(headers, value)


def test_an_unknown_type_is_poison_and_the_known_ones_are_named():
    headers, value = record()
    with pytest.raises(PoisonError, match=r"unknown event type 'io\.clipdrift\.Tomorrow'.*io\.clipdrift\.Deployment"):
        decode({**headers, "ce_type": b"io.clipdrift.Tomorrow"}, value)


def test_an_unknown_content_type_is_poison():
    headers, value = record()
    with pytest.raises(PoisonError, match="content-type must be"):
        decode({**headers, "content-type": b"application/avro"}, value)


@pytest.mark.parametrize("name", ["ce_id", "ce_time", "ce_type", "content-type"])
def test_an_unreadable_header_is_poison(name):
    headers, value = record()
    with pytest.raises(PoisonError, match="unreadable header"):
        decode({**headers, name: b"\xff\xfe"}, value)


@pytest.mark.parametrize("content_type", [MSGPACK, JSON])
def test_a_value_cut_anywhere_is_poison(content_type):
    headers, value = record(content_type)
    for length in range(len(value)):
        with pytest.raises(PoisonError):
            decode(headers, value[:length])


def test_a_value_of_another_type_is_poison_and_the_field_is_named():
    headers, _ = record(JSON)
    wrong = msgspec.json.encode({**msgspec.to_builtins(example(Deployment)), "generation": "two"})
    with pytest.raises(PoisonError, match="generation"):
        decode(headers, wrong)


def test_a_string_that_is_no_utf8_is_poison():
    headers, value = record(JSON)
    with pytest.raises(PoisonError):
        decode(headers, value.replace(b"model 101", b"model \xff\xfe1"))


@pytest.mark.parametrize("time", [b"2013-03-08T10:00:00", b"yesterday", b""])
def test_a_time_that_names_no_moment_is_poison(time):
    headers, value = record()
    with pytest.raises(PoisonError, match="unreadable header"):
        decode({**headers, "ce_time": time}, value)


def test_deep_nesting_is_poison_and_not_a_crash():
    headers, _ = record(JSON)
    with pytest.raises(PoisonError):
        decode(headers, b'{"model":' + b"[" * 100_000)


types = st.sampled_from([(TYPE_PREFIX + kind.__name__).encode() for kind in EVENT_TYPES]) | st.binary(max_size=12)
contents = st.sampled_from([MSGPACK.encode(), JSON.encode()]) | st.binary(max_size=12)


@given(
    attributes=st.fixed_dictionaries(
        {},
        optional={
            "ce_id": st.binary(max_size=8),
            "ce_source": st.binary(max_size=8),
            "ce_type": types,
            "ce_time": st.just(b"2013-03-08T10:00:00Z") | st.binary(max_size=30) | st.text(max_size=30).map(str.encode),
            "ce_subject": st.binary(max_size=8),
            "content-type": contents,
        },
    ),
    value=st.binary(max_size=64) | st.sampled_from([msgspec.msgpack.encode(example(kind)) for kind in EVENT_TYPES]),
)
def test_no_record_makes_decode_raise_anything_but_poison(attributes, value):
    try:
        envelope, event = decode(attributes, value)
    except PoisonError:
        return
    assert envelope.type == TYPE_PREFIX + type(event).__name__


@given(kind=st.sampled_from(EVENT_TYPES), place=st.integers(0, 10_000), byte=st.integers(0, 255), as_json=st.booleans())
def test_no_changed_byte_makes_decode_raise_anything_but_poison(kind, place, byte, as_json):
    chosen = JSON if as_json else MSGPACK
    headers, value = encode(example(kind), event_id="a", source="s", time_ms=AT_MS, content_type=chosen)
    broken = bytearray(value)
    broken[place % len(broken)] = byte
    try:
        _, event = decode(headers, bytes(broken))
    except PoisonError:
        return
    assert isinstance(event, kind)


@given(st.integers(0, 4_102_444_800_000))
def test_times_keep_their_millisecond(time_ms):
    headers, value = encode(example(Deployment), event_id="a", source="s", time_ms=time_ms)
    assert decode(headers, value)[0].time_ms == time_ms


def test_ids_of_two_lives_never_meet():
    one, two = IdSource(), IdSource()
    ids = [source.next() for source in (one, two) for _ in range(1000)]
    assert len(set(ids)) == 2000
