"""Golden files: what was once written is read for ever, and no field changes its name or disappears."""

import json

import jsonschema
import msgspec
import pytest
from write_golden import EVENT_TYPES, GOLDEN, example

from clipdrift_contract import events
from clipdrift_contract.envelope import JSON, MSGPACK, TYPE_PREFIX, decode, topic_of
from clipdrift_contract.events import key_of

FILES = sorted(GOLDEN.iterdir())
KINDS = {kind.__name__: kind for kind in EVENT_TYPES}
every_event = pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)


def headers(kind_name, content_type):
    return {
        "ce_id": b"a-0",
        "ce_source": b"test",
        "ce_type": (TYPE_PREFIX + kind_name).encode(),
        "ce_time": b"2013-03-08T10:00:00+00:00",
        "content-type": content_type.encode(),
    }


def read_golden(path):
    content_type = JSON if path.suffix == ".json" else MSGPACK
    return decode(headers(path.stem.split("-")[0], content_type), path.read_bytes())[1]


@every_event
def test_every_event_has_a_golden_file_in_both_forms(kind):
    assert {path.name for path in FILES} >= {f"{kind.__name__}-v1.json", f"{kind.__name__}-v1.msgpack"}


def test_every_golden_file_belongs_to_an_event():
    assert {path.stem.split("-")[0] for path in FILES} == set(KINDS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_golden_file_parses_and_nothing_in_it_is_lost(path):
    read = read_golden(path)

    written = msgspec.json.decode(path.read_bytes()) if path.suffix == ".json" else msgspec.msgpack.decode(path.read_bytes())
    as_json = path.suffix == ".json"
    again = msgspec.to_builtins(read, str_keys=as_json, builtin_types=() if as_json else (bytes,))
    assert holds(again, written), "a field that old producers send is no longer read"


def holds(now, then):
    """Whether everything in `then` is in `now`, which may hold more."""
    if isinstance(then, dict):
        return all(name in now and holds(now[name], value) for name, value in then.items())
    if isinstance(then, list | tuple):
        return len(now) == len(then) and all(holds(a, b) for a, b in zip(now, then, strict=True))
    return now == then


@every_event
def test_both_forms_say_the_same(kind):
    as_json, as_msgpack = (read_golden(GOLDEN / f"{kind.__name__}-v1.{ending}") for ending in ("json", "msgpack"))
    assert as_json == as_msgpack


@every_event
def test_a_golden_file_fills_every_field_of_its_version(kind):
    newest = max(path for path in FILES if path.name.startswith(f"{kind.__name__}-v") and path.suffix == ".json")
    assert set(json.loads(newest.read_bytes())) == {field.name for field in msgspec.structs.fields(kind)}, (
        "a field was added: write golden files of the next version with tests/contract/write_golden.py"
    )


@every_event
def test_fields_of_a_later_version_are_ignored(kind):
    later = {**msgspec.to_builtins(example(kind)), "added_next_year": 1}
    event = decode(headers(kind.__name__, JSON), msgspec.json.encode(later))[1]
    assert event == example(kind)


@every_event
def test_an_event_fits_its_published_schema(kind):
    schema = msgspec.json.schema(kind)
    jsonschema.validate(json.loads(msgspec.json.encode(example(kind))), schema)


@every_event
def test_every_event_has_a_topic(kind):
    assert topic_of(example(kind)) in events.TOPICS


def test_predictions_and_their_labels_share_a_key_and_all_else_goes_by_model():
    prediction, label = example(events.PredictionBatch), example(events.LabelBatch)
    label = msgspec.structs.replace(label, model=prediction.model, epoch=prediction.epoch)
    assert key_of(prediction) == key_of(label) == f"{prediction.model}/{prediction.epoch}".encode()
    others = [example(kind) for kind in EVENT_TYPES if kind not in (events.PredictionBatch, events.LabelBatch)]
    assert all(key_of(event) == event.model.encode() for event in others)


@every_event
def test_events_cannot_be_changed(kind):
    event = example(kind)
    with pytest.raises(AttributeError):
        event.model = "another"
