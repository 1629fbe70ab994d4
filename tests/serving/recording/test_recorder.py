"""Recorded is what was answered, in order; what is not recorded is counted."""

import numpy as np
import pytest
from toy_service import KEY, KeptEvents, Service

from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.recording.recorder import Labelled, Predicted, Recorder, Sampling
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


EPOCH = "0123456789abcdef"


def _sampled(ratio, num_rows=20_000, epoch=EPOCH, **more):
    spool, metrics = KeptEvents(), MetricSet()
    recorder = Recorder(spool, epoch, metrics, 10**6, sampling=Sampling(ratio=ratio, **more))
    for first in range(0, num_rows, 100):
        recorder.add(_predicted(first, 100))
        if first % 1000 == 0:
            recorder.flush()
    recorder.flush()
    return spool.events, metrics


def _sequences(events):
    return np.concatenate([event.sequence.array() for event in events]).tolist()


def test_of_what_is_sampled_every_row_is_recorded_or_counted():
    events, metrics = _sampled(0.3)
    kept = _sequences(events)
    left_out = metrics.registry.get_sample_value("clipdrift_serving_unrecorded_total", {"model": "toy", "reason": "sampled"})
    assert len(kept) + left_out == 20_000
    assert sum(event.num_unrecorded for event in events) == left_out
    assert kept == sorted(set(kept))
    # binomial: 5 standard deviations
    assert abs(len(kept) - 6000) < 5 * np.sqrt(20_000 * 0.3 * 0.7)
    for event in events:
        x = {column.name: column.values.array() for column in event.features}["x"]
        assert (x == event.sequence.array()).all()


def test_the_same_rows_are_sampled_whoever_asks_and_others_in_another_life():
    first, again, later = (_sequences(_sampled(0.3, epoch=epoch)[0]) for epoch in (EPOCH, EPOCH, "fedcba9876543210"))
    assert first == again
    shared = len(set(first) & set(later))
    assert abs(shared - 20_000 * 0.09) < 5 * np.sqrt(20_000 * 0.09 * 0.91)


def test_a_smaller_sample_is_part_of_a_larger_one_and_a_model_may_have_its_own():
    small, large = (set(_sequences(_sampled(ratio)[0])) for ratio in (0.1, 0.5))
    assert small < large
    assert len(_sequences(_sampled(0.1, by_model={"toy": 1.0})[0])) == 20_000


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, float("nan")])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        Sampling(ratio=ratio)
    with pytest.raises(ValueError, match="m: the share"):
        Sampling(by_model={"m": ratio})


@pytest.mark.parametrize("num_classes", [0, 2, 20])
def test_labels_of_several_versions_and_lives_become_a_batch_each_that_says_what_the_receipts_said(num_classes):
    rng = np.random.default_rng(5)
    spool = KeptEvents()
    recorder = Recorder(spool, EPOCH, MetricSet(), 100)
    labelled = []
    for epoch in (EPOCH, "ff" * 8):
        book = ReceiptBook([KEY], epoch)
        for version in ("v1", "v2"):
            scores = rng.dirichlet(np.ones(num_classes), size=700).astype("f4") if num_classes else np.zeros((700, 0), "f4")
            rows = np.arange(700)
            tokens = book.issue(
                "toy", version, "canary", 2, rows.astype("u8"), rows + 5, rows.astype("i2") % 3, rng.random(700), scores
            )
            labelled += [Labelled(book.verify(token), float(row % 2), 9000 + row) for row, token in enumerate(tokens)]
    order = rng.permutation(len(labelled))
    recorder.add_labels([labelled[at] for at in order])
    assert all(len(event.sequence) <= 512 for event in spool.events)
    told = {
        (event.epoch, event.version, row[0]): row[1:]
        for event in spool.events
        for row in zip(
            *(
                getattr(event, name).array().tolist()
                for name in ("sequence", "event_time_ms", "slice_index", "predicted", "label", "label_time_ms", "scores")
            ),
            strict=True,
        )
    }
    assert len(told) == len(labelled) == 2800
    assert {(event.model, event.role) for event in spool.events} == {("toy", "canary")}
    for one in labelled:
        receipt = one.receipt
        *values, scores = told[receipt.epoch, receipt.version, receipt.sequence]
        assert values == [receipt.event_time_ms, receipt.slice_index, receipt.predicted, one.label, one.label_time_ms]
        np.testing.assert_array_equal(np.array(scores, "f4"), np.array(receipt.scores, "f4"))


def test_a_spool_that_fails_oddly_drops_only_what_it_did_not_take():
    spool, metrics = KeptEvents(), MetricSet()
    recorder = Recorder(spool, EPOCH, metrics, 10_000)
    for first in range(0, 1536, 3):
        recorder.add(_predicted(first, 3))
    taken = spool.append

    def append(event):
        if event.sequence.array()[0] == 512:
            raise ZeroDivisionError("odd")
        taken(event)

    spool.append = append
    recorder.flush()
    assert [event.sequence.array()[0] for event in spool.events] == [0, 1024]
    assert metrics.registry.get_sample_value("clipdrift_serving_unrecorded_total", {"model": "toy", "reason": "fault"}) == 512
    assert [event.num_unrecorded for event in spool.events] == [0, 512]


def test_request_ids_are_handed_on_also_where_the_rows_find_no_room():
    told = []
    recorder = Recorder(KeptEvents(), EPOCH, MetricSet(), 10, remember=told.append)
    recorder.add(_predicted(0, 8)._replace(request_ids=[("a", 3), ("", 5)]))
    recorder.add(_predicted(8, 8)._replace(request_ids=[("b", 8)]))
    recorder.add(_predicted(16, 2))
    assert [one.request_ids for one in told] == [[("a", 3), ("", 5)], [("b", 8)]]
    assert recorder.num_pending_rows == 10
