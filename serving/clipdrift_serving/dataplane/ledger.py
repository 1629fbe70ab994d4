"""Where a prediction becomes a record and a receipt: its identity, its time, what was predicted from what."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import Clock
from clipdrift_contract.events import Role
from clipdrift_serving.dataplane.model import Head, LoadedModel
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.dataplane.tensors import Tensor
from clipdrift_serving.recording.recorder import Predicted, Recorder

Scored = Sequence[tuple[Head, npt.NDArray[np.float64], npt.NDArray[np.float32]]]


class Entry(NamedTuple):
    """N rows that were entered, and the tokens of their receipts by head."""

    sequence_N: npt.NDArray[np.uint64]
    event_time_N: npt.NDArray[np.int64]
    receipts: list[list[str]]
    now_ms: int


class Ledger:
    """Gives each row its number in this process's life, records it, and signs its receipts. One thread only.

    Args:
        must_write: Whether what is entered must be in the spool before it is answered.
    """

    def __init__(self, receipts: ReceiptBook, recorder: Recorder, clock: Clock, *, must_write: bool) -> None:
        self._receipts = receipts
        self._recorder = recorder
        self._clock = clock
        self._must_write = must_write
        self._next_sequence = 0

    def enter(
        self,
        model: LoadedModel,
        role: Role,
        generation: int,
        inputs: Mapping[str, Tensor],
        scored: Scored,
        times: Sequence[tuple[int, npt.NDArray[np.int64] | None]],
        request_ids: Sequence[tuple[str, int]] = (),
    ) -> Entry:
        """Enter the rows of one run.

        Args:
            scored: What each head predicted for all rows.
            times: Per request its number of rows and their event times; None: now.
            request_ids: Per request the caller's own id ("": none) and its number of rows; empty: nobody gave one.
        """
        now_ms = self._clock.now_ms()
        num_rows = sum(rows for rows, _ in times)
        if all(given is None for _, given in times):
            event_time_N = np.full(num_rows, now_ms, np.int64)
        else:
            event_time_N = np.concatenate([np.full(rows, now_ms, np.int64) if one is None else one for rows, one in times])
        sequence_N = np.arange(self._next_sequence, self._next_sequence + num_rows, dtype=np.uint64)
        self._next_sequence += num_rows
        slice_N = model.slice_index(inputs, num_rows)
        receipts = []
        for head, predicted_N, scores_NK in scored:
            named = head.name, model.version, role, generation, sequence_N, event_time_N, slice_N, predicted_N
            probabilities_NK = scores_NK[:, :0] if head.is_value else scores_NK  # a receipt holds a value exactly already
            tokens = self._receipts.issue(*named, probabilities_NK)
            self._recorder.add(Predicted(*named, scores_NK, inputs, request_ids, head.profile or model.profile))
            receipts.append(tokens)
        if self._must_write:
            self._recorder.flush()
        return Entry(sequence_N, event_time_N, receipts, now_ms)
