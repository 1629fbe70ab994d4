"""Recorded is what was answered, in order; what is not recorded is counted."""

import numpy as np
from toy_service import KeptEvents, Service

from clipdrift_serving.recording.recorder import Predicted
from clipdrift_serving.recording.spool import SpoolFullError


def _predicted(first, num_rows, version="v1", carrier="UA"):
    rows = np.arange(first, first + num_rows)
    features = {"x": rows.astype("f4"), "carrier": np.array([carrier] * num_rows, object)}
    scores = np.full((num_rows, 2), 0.5, "f4")
    return Predicted(
        "toy", version, "champion", 1, rows.astype("u8"), rows, rows.astype("i2") * 0, rows * 0.0, scores, features
    )


def test_requests_become_columnar_batches_of_at_most_512_rows_in_order():
    service = Service()
    for first in range(0, 1200, 3):
        service.recorder.add(_predicted(first, 3))
    service.recorder.flush()
    assert [len(batch.sequence.array()) for batch in service.spool.events] == [512, 512, 176]
    assert np.concatenate([batch.sequence.array() for batch in service.spool.events]).tolist() == list(range(1200))
    features = {column.name: column.values for column in service.spool.events[0].features}
    assert features["carrier"].strings == ("UA",)


def test_versions_do_not_mix_in_a_batch():
    service = Service()
    for n, version in enumerate(("v1", "v2", "v1")):
        service.recorder.add(_predicted(n, 1, version))
    service.recorder.flush()
    assert [(b.version, b.sequence.array().tolist()) for b in service.spool.events] == [("v1", [0, 2]), ("v2", [1])]


def test_what_finds_no_room_is_counted_and_told_with_the_next_batch():
    service = Service(max_pending_rows=10)
    service.recorder.add(_predicted(0, 8))
    service.recorder.add(_predicted(8, 5))
    service.spool.error = SpoolFullError("full")
    service.recorder.flush()
    service.spool.error = None
    service.recorder.add(_predicted(13, 1))
    service.recorder.flush()
    assert service.spool.events[0].num_unrecorded == 13
    assert service.metric("clipdrift_serving_unrecorded_total", model="toy", reason="memory") == 5
    assert service.metric("clipdrift_serving_unrecorded_total", model="toy", reason="spool_full") == 8


def test_what_cannot_be_packed_does_not_end_recording():
    service = Service()
    service.recorder.add(_predicted(0, 1, "v1"))
    service.recorder.add(_predicted(1, 1, "v2")._replace(features={"x": np.zeros(1, "c8")}))
    service.recorder.add(_predicted(2, 1, "v3"))
    service.recorder.flush()
    assert isinstance(service.spool, KeptEvents)
    assert [batch.version for batch in service.spool.events] == ["v1", "v3"]
    assert service.metric("clipdrift_serving_unrecorded_total", model="toy", reason="fault") == 1
