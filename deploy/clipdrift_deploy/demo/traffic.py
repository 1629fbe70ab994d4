"""A model's traffic in time order: which rows are sent when, which labels have come in by then, what was answered."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_deploy.demo.client import ServingClient
from clipdrift_trainer.tasks.task import Rows

ROWS_A_REQUEST = 64  # a canary gets whole requests: with fewer and larger ones its share of a day is left to chance


class Stream:
    """Rows in time order for one model. Each label is handed in once its flight has landed, in the order of landing."""

    def __init__(self, model: str, rows: Rows, num_classes: int) -> None:
        self.model = model
        self.rows = rows
        self.scores_NK = np.full((len(rows), num_classes), np.nan, np.float32)
        self.version_N = np.full(len(rows), "", dtype=object)
        self.num_sent = 0
        self.num_answered = 0
        self.num_labels = 0
        self._receipts: list[str] = [""] * len(rows)
        self._landing_order_N = np.argsort(rows.label_time_ms, kind="stable")
        self._landed_ms_N = rows.label_time_ms[self._landing_order_N]
        self._num_due = 0

    def send_until(self, client: ServingClient, end_ms: int) -> None:
        """Send all rows that happen before `end_ms`, and in between the labels of what has landed by then."""
        last = int(np.searchsorted(self.rows.time_ms, end_ms))
        for first in range(self.num_sent, last, ROWS_A_REQUEST):
            batch = slice(first, min(first + ROWS_A_REQUEST, last))
            self.deliver_until(client, int(self.rows.time_ms[first]))
            self._send(client, batch)
        self.num_sent = max(self.num_sent, last)
        self.deliver_until(client, end_ms - 1)  # what lands at midnight is the next day's news

    def deliver_until(self, client: ServingClient, now_ms: int) -> None:
        """Hand in the labels of what has landed by `now_ms`."""
        last = int(np.searchsorted(self._landed_ms_N, now_ms, side="right"))
        for first in range(self._num_due, last, ROWS_A_REQUEST):
            due_N = self._landing_order_N[first : min(first + ROWS_A_REQUEST, last)]
            known = [row for row in due_N.tolist() if self._receipts[row]]
            if known:
                self.num_labels += client.feedback(
                    self.model,
                    [self._receipts[row] for row in known],
                    self.rows.label[known].astype(int).tolist(),
                    self.rows.label_time_ms[known].tolist(),
                )
            for row in known:
                self._receipts[row] = ""  # redeemed; ten months of receipts need not stay in memory
        self._num_due = max(self._num_due, last)

    @property
    def next_ms(self) -> int:
        """When the next row happens; the last one's time where all are sent."""
        return int(self.rows.time_ms[min(self.num_sent, len(self.rows) - 1)])

    @property
    def last_label_ms(self) -> int:
        return int(self._landed_ms_N[-1])

    def _send(self, client: ServingClient, batch: slice) -> None:
        answer = client.infer(self.model, select(self.rows, batch))
        if answer is None:
            return
        self.scores_NK[batch] = answer.scores_NK
        self.version_N[batch] = answer.version
        self._receipts[batch] = answer.receipts
        self.num_answered += len(answer.receipts)


def select(rows: Rows, part: slice) -> Rows:
    """A stretch of `rows`, without copying."""
    features = {name: column[part] for name, column in rows.features.items()}
    return Rows(features, rows.label[part], rows.time_ms[part], rows.label_time_ms[part])


def day_ends(rows: Rows) -> Iterator[int]:
    """The midnights after which the days of `rows` are over, in order."""
    for day in np.unique(rows.time_ms // MS_PER_DAY).tolist():
        yield (day + 1) * MS_PER_DAY


def bootstrap_days(rows: Rows, num_days: int, first_ms: int, seed: int) -> Rows:
    """A replay in which nothing changes: whole days of `rows`, drawn with replacement, laid on consecutive calendar days.

    Args:
        rows: Held-out rows of the training time.
        num_days: How many days to lay.
        first_ms: Midnight at which the first of them begins.
        seed: Of the drawing.
    """
    day_N = rows.time_ms // MS_PER_DAY
    drawn = np.random.default_rng(seed).choice(np.unique(day_N), num_days)
    found = [np.flatnonzero(day_N == day) for day in drawn]
    moved_ms = [
        np.full(len(index), first_ms + i * MS_PER_DAY - day * MS_PER_DAY)
        for i, (day, index) in enumerate(zip(drawn, found, strict=True))
    ]
    index_N: npt.NDArray[np.int64] = np.concatenate(found)
    moved_N = np.concatenate(moved_ms)
    laid = rows.select(index_N)
    return Rows(laid.features, laid.label, laid.time_ms + moved_N, laid.label_time_ms + moved_N)
