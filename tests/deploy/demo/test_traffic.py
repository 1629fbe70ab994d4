"""A stream's order of rows and labels, against a server that only takes notes; and the control's days."""

from collections.abc import Sequence

import numpy as np
import pytest

from clipdrift_deploy.demo.client import Answer, ServingClient
from clipdrift_deploy.demo.traffic import ROWS_A_REQUEST, Stream, bootstrap_days, day_ends, select
from clipdrift_trainer.tasks.task import Rows

DAY, HOUR = 86_400_000, 3_600_000


def make_rows(num_days: int, rows_a_day: int, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    time_N = np.concatenate([day * DAY + np.sort(generator.integers(0, DAY, rows_a_day)) for day in range(num_days)])
    number_N = np.arange(len(time_N), dtype=np.float32)
    label_time_N = time_N + generator.integers(HOUR, 30 * HOUR, len(time_N))
    return Rows({"number": number_N}, number_N.astype(np.float64) % 2, time_N, label_time_N)


class NotedClient(ServingClient):
    """Answers as a server would, whose receipts are the rows' own numbers; refuses the requests it is told to refuse."""

    def __init__(self, refused: Sequence[int] = ()) -> None:
        super().__init__("http://nowhere.invalid", "http://nowhere.invalid", "")
        self.refused = refused
        self.batches: list[list[int]] = []
        self.notes: list[tuple[str, int]] = []  # ("row" or "label", row), in the order of coming
        self.labels: dict[int, tuple[int, int]] = {}

    def infer(self, model: str, rows: Rows) -> Answer | None:
        numbers = rows.features["number"].astype(int).tolist()
        self.batches.append(numbers)
        if len(self.batches) - 1 in self.refused:
            return None
        self.notes += [("row", number) for number in numbers]
        return Answer("v1", np.full((len(numbers), 2), 0.5, np.float32), [str(number) for number in numbers])

    def feedback(self, model: str, receipts: Sequence[str], labels: Sequence[int], label_times_ms: Sequence[int]) -> int:
        for receipt, label, time_ms in zip(receipts, labels, label_times_ms, strict=True):
            self.notes.append(("label", int(receipt)))
            assert int(receipt) not in self.labels, "a receipt is redeemed once"
            self.labels[int(receipt)] = (label, time_ms)
        return len(receipts)


def replayed(rows: Rows, client: NotedClient) -> Stream:
    stream = Stream("one", rows, 2)
    for end_ms in day_ends(rows):
        stream.send_until(client, end_ms)
    stream.deliver_until(client, stream.last_label_ms)
    return stream


def test_every_row_is_sent_once_in_time_order_in_small_requests() -> None:
    rows, client = make_rows(3, 400), NotedClient()

    stream = replayed(rows, client)

    assert [number for kind, number in client.notes if kind == "row"] == list(range(1200))
    assert max(map(len, client.batches)) == ROWS_A_REQUEST
    assert (stream.num_sent, stream.num_answered, stream.num_labels) == (1200, 1200, 1200)


def test_labels_come_in_the_order_of_landing_each_after_its_row_and_with_its_own_label() -> None:
    rows, client = make_rows(3, 400), NotedClient()

    replayed(rows, client)

    landed = [number for kind, number in client.notes if kind == "label"]
    assert rows.label_time_ms[landed].tolist() == sorted(rows.label_time_ms.tolist())
    place = {note: i for i, note in enumerate(client.notes)}
    assert all(place["row", number] < place["label", number] for number in range(1200))
    assert client.labels == {i: (int(rows.label[i]), int(rows.label_time_ms[i])) for i in range(1200)}


def test_no_label_comes_before_it_is_known() -> None:
    rows, client = make_rows(3, 400), NotedClient()
    stream = Stream("one", rows, 2)

    stream.send_until(client, 2 * DAY)

    assert set(client.labels) == set(np.flatnonzero(rows.label_time_ms <= 2 * DAY).tolist())
    assert 0 < len(client.labels) < 800


def test_rows_that_were_refused_have_no_scores_and_no_label() -> None:
    rows, client = make_rows(2, 300), NotedClient(refused=[1])

    stream = replayed(rows, client)

    lost = client.batches[1]
    assert np.isnan(stream.scores_NK[lost]).all()
    assert set(stream.version_N[lost]) == {""}
    assert stream.num_answered == stream.num_labels == 600 - len(lost)
    assert not set(lost) & set(client.labels)


def test_a_part_is_the_same_rows_without_copying() -> None:
    rows = make_rows(1, 10)

    part = select(rows, slice(2, 5))

    assert part.features["number"].tolist() == [2.0, 3.0, 4.0]
    assert np.shares_memory(part.label, rows.label)


def test_the_control_is_whole_days_in_their_own_order_on_consecutive_dates() -> None:
    rows, first_ms = make_rows(12, 50), 1_000 * DAY

    laid = bootstrap_days(rows, 20, first_ms, seed=1)

    assert len(laid) == 20 * 50
    source_N = laid.features["number"].astype(int)
    for i in range(20):
        day = source_N[i * 50 : (i + 1) * 50]
        assert day.tolist() == list(range(day[0], day[0] + 50)), "a day comes whole"
        assert day[0] % 50 == 0
        assert set((laid.time_ms[i * 50 : (i + 1) * 50] // DAY).tolist()) == {1_000 + i}
    assert (laid.time_ms % DAY == rows.time_ms[source_N] % DAY).all(), "at its own hour"
    assert (laid.label_time_ms - laid.time_ms == (rows.label_time_ms - rows.time_ms)[source_N]).all()
    assert (laid.label == rows.label[source_N]).all()
    assert len(set(source_N.tolist())) < 20 * 50, "drawn with replacement"


@pytest.mark.parametrize(("seed", "is_same"), [(1, True), (2, False)])
def test_the_seed_decides_which_days(seed: int, is_same: bool) -> None:
    rows = make_rows(12, 5)
    first, second = bootstrap_days(rows, 20, 0, seed=1), bootstrap_days(rows, 20, 0, seed=seed)

    assert (first.features["number"].tolist() == second.features["number"].tolist()) == is_same


def test_days_without_rows_have_no_midnight() -> None:
    rows = make_rows(4, 3)

    assert list(day_ends(rows.select(rows.time_ms // DAY != 1))) == [DAY, 3 * DAY, 4 * DAY]
