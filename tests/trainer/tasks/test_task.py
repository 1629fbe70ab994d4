import numpy as np
import pytest
from toy_task import DAY, Toy

from clipdrift_trainer.tasks.task import LeakError, Rows, encode, load_as_of, vocabularies_of


class Tampered(Toy):
    """Hands out its rows after `tamper` has had them, and ignores what was asked for."""

    def __init__(self, tamper):
        super().__init__()
        self.tamper = tamper

    def load(self, start_ms, end_ms, as_of_ms):
        rows = self.make(4)
        columns = {"label": rows.label, "time_ms": rows.time_ms, "label_time_ms": rows.label_time_ms, **rows.features}
        columns = {name: column.copy() for name, column in columns.items()}
        self.tamper(columns)
        times = [columns.pop(name) for name in ("label", "time_ms", "label_time_ms")]
        return Rows(columns, *times)


def plant(name, value, row=7):
    def tamper(columns):
        columns[name][row] = value

    return tamper


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (plant("label_time_ms", 5 * DAY + 1), "known only after as_of"),
        (plant("time_ms", -1), "before the window begins"),
        (plant("time_ms", 4 * DAY), "after the window's end"),
        (plant("label_time_ms", 0), "before the row happened"),
    ],
)
def test_a_planted_leak_is_refused_and_its_row_is_named(tamper, words):
    with pytest.raises(LeakError, match=f"1 of 240 rows .*{words}.*row 7 "):
        load_as_of(Tampered(tamper), 0, 4 * DAY, 5 * DAY)


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (plant("trace", np.nan), "nullable"),
        (plant("pressure", np.inf), "finite or NaN"),
        (plant("label", 2.0), "class indices"),
        (plant("label", np.nan), "class indices"),
        (lambda columns: columns.pop("site"), "no column 'site'"),
        (lambda columns: columns.update(trace=columns["trace"][:, 0]), "must have shape"),
        (lambda columns: columns.update(pressure=columns["pressure"][:-1]), "differ in length"),
    ],
)
def test_a_broken_column_is_refused_in_words(tamper, words):
    with pytest.raises(ValueError, match=words):
        load_as_of(Tampered(tamper), 0, 4 * DAY, 5 * DAY)


def test_rows_come_in_time_order_whatever_order_the_task_gave():
    class Shuffled(Toy):
        def load(self, start_ms, end_ms, as_of_ms):
            rows = super().load(start_ms, end_ms, as_of_ms)
            return rows.select(np.random.default_rng(0).permutation(len(rows)))

    rows, straight = load_as_of(Shuffled(), 0, 2 * DAY, 3 * DAY), load_as_of(Toy(), 0, 2 * DAY, 3 * DAY)
    assert np.array_equal(rows.time_ms, straight.time_ms)
    assert np.array_equal(rows.features["trace"], straight.features["trace"])


def test_a_label_known_exactly_at_as_of_is_no_leak():
    as_of_ms = int(Toy().make(4).label_time_ms.max())
    assert len(load_as_of(Tampered(lambda columns: None), 0, 4 * DAY, as_of_ms)) == 240


def test_an_unknown_category_has_the_code_after_the_last():
    rows = Toy().make(1)
    rows.features["site"][0] = "moon"
    assert encode(Toy(), rows, {"site": ("south", "north")})["site"][0] == 2


def test_categories_come_most_frequent_first_and_are_bounded():
    rows = Toy().make(1)
    rows.features["site"][:] = ["a"] * 10 + ["b"] * 30 + ["c"] * 20
    assert vocabularies_of(Toy(), rows) == {"site": ("b", "c", "a")}
    assert vocabularies_of(Toy(), rows, max_categories=2) == {"site": ("b", "c")}


@pytest.mark.parametrize("name", ["label", "time_ms", "label_time_ms"])
def test_a_column_of_shape_n_by_1_is_refused(name):
    class Columns(Toy):
        def load(self, start_ms, end_ms, as_of_ms):
            rows = super().load(start_ms, end_ms, as_of_ms)
            columns = {"label": rows.label, "time_ms": rows.time_ms, "label_time_ms": rows.label_time_ms}
            return Rows(rows.features, **{**columns, name: columns[name][:, None]})

    with pytest.raises(ValueError, match=f"{name} must have shape"):
        load_as_of(Columns(), 0, 5 * DAY, 5 * DAY)


def test_a_label_time_that_is_nan_is_refused():
    class NotYet(Toy):
        def load(self, start_ms, end_ms, as_of_ms):
            rows = super().load(start_ms, end_ms, as_of_ms)
            label_time_ms = rows.label_time_ms.astype(float)
            label_time_ms[3] = float("nan")
            return Rows(rows.features, rows.label, rows.time_ms, label_time_ms)

    with pytest.raises(ValueError, match="label_time_ms must be known for every row"):
        load_as_of(NotYet(), 0, 5 * DAY, 5 * DAY)
