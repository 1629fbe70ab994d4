import msgspec
import numpy as np
import pytest
from dialogue import DAY, labels, predictions, rows

from clipdrift_contract.columns import Column
from clipdrift_contract.errors import PoisonError
from clipdrift_monitor.intake.expiry import rows_since

COLUMNS = rows(5, 40)
MIDDLE = int(np.median(COLUMNS["time_ms"]))


@pytest.mark.parametrize("make", [predictions, labels])
def test_rows_of_before_are_left_out_in_every_column(make):
    is_kept_N = COLUMNS["time_ms"] >= MIDDLE
    expected = make({name: values[is_kept_N] for name, values in COLUMNS.items()}, first=0)
    found = rows_since(make(COLUMNS), MIDDLE)
    numbers = np.flatnonzero(is_kept_N).astype("u8")
    assert found == msgspec.structs.replace(expected, sequence=Column.of(numbers))


@pytest.mark.parametrize("from_ms", [0, -1, 5 * DAY])
def test_a_batch_of_which_nothing_is_old_is_the_same_object(from_ms):
    batch = predictions(COLUMNS)
    assert rows_since(batch, from_ms) is batch


def test_of_a_batch_that_is_too_old_no_row_is_left():
    assert len(rows_since(labels(COLUMNS), 6 * DAY).sequence) == 0


def test_columns_that_do_not_fit_are_left_to_whoever_counts_them():
    uneven = predictions(COLUMNS, sequence=Column.of(np.arange(3, dtype="u8")))
    assert rows_since(uneven, MIDDLE) is uneven
    with pytest.raises(PoisonError):
        rows_since(predictions(COLUMNS, event_time_ms=Column(dtype="<i8", shape=(40,), data=b"short")), MIDDLE)
