"""How requests fare is told by version and role, with their rows or, where they fail, without."""

import math

import numpy as np
from toy_service import Service

from clipdrift_serving.recording.recorder import Predicted
from clipdrift_serving.recording.spool import SpoolFullError
from clipdrift_serving.recording.tally import Tally


def predicted(first, num_rows, role="champion", version="v1"):
    rows = np.arange(first, first + num_rows)
    return Predicted(
        "toy", version, role, 3, rows.astype("u8"), rows, rows.astype("i2") * 0, rows * 0.0, np.full((num_rows, 2), 0.5, "f4"),
        {"x": rows.astype("f4")},
    )  # fmt: skip


def test_every_latency_lies_between_the_ends_of_its_bucket():
    tally = Tally()
    tally.latency_ns = [*np.random.default_rng(0).lognormal(12, 3, 500).astype(int).tolist(), 0, 1000, 4000]

    found = tally.latency_histogram()

    assert sum(found.values()) == 503
    for bucket, number in found.items():
        low, high = 2 ** (bucket / 4), 2 ** ((bucket + 1) / 4)
        inside = [ns for ns in tally.latency_ns if (low <= ns / 1e3 < high) or (bucket == 0 and ns < 1_000)]
        assert len(inside) == number, (bucket, math.log2(low))


def test_what_a_version_is_counted_for_goes_once_with_its_next_batch_and_with_no_other_role():
    service = Service()
    canary = service.recorder.tally("toy", "v2", "canary", 3)
    champion = service.recorder.tally("toy", "v1", "champion", 3)
    canary.latency_ns += [1_000, 2_000]
    champion.latency_ns.append(1_000)
    for first in (0, 100):
        service.recorder.add(predicted(first, 600, "canary", "v2"))
        service.recorder.flush()

    told = [(batch.role, batch.latency_histogram) for batch in service.spool.events]
    assert told == [("canary", {0: 1, 4: 1}), ("canary", {}), ("canary", {}), ("canary", {})]
    assert champion.latency_ns == [1_000]
    assert service.recorder.tally("toy", "v2", "canary", 3) is canary


def test_a_version_that_only_fails_is_told_of_without_rows():
    service = Service()
    tally = service.recorder.tally("toy", "v2", "canary", 3)
    tally.num_failed = 7
    service.spool.error = SpoolFullError("full")
    service.recorder.flush()
    service.spool.error = None
    service.recorder.flush()
    service.recorder.flush()

    (batch,) = service.spool.events
    assert (batch.version, batch.role, batch.generation, batch.num_failed) == ("v2", "canary", 3, 7)
    assert len(batch.sequence) == 0
    assert tally.is_empty
