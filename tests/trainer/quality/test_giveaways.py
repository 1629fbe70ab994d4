"""What tells the label and will not be there when it is needed: single features, groups, encodings, hindsight."""

from dataclasses import replace

import numpy as np
import pytest
from toy_table import DAY, Given, given, table, table_of

from clipdrift_trainer.quality.groups import GroupsPolicy, check_groups
from clipdrift_trainer.quality.hindsight import HindsightPolicy, check_hindsight
from clipdrift_trainer.quality.single_feature import SingleFeaturePolicy, check_single_feature
from clipdrift_trainer.quality.table import Table
from clipdrift_trainer.quality.target_encoding import TargetEncodingPolicy, check_target_encoding, dispersion
from clipdrift_trainer.tasks.task import Rows

N = 2_000
GENERATOR = np.random.default_rng(11)
X = GENERATOR.normal(size=N)
YES = (GENERATOR.random(N) < 1 / (1 + np.exp(-2 * X))).astype(float)
FIVE = GENERATOR.integers(5, size=N).astype(float)
VALUE = X + GENERATOR.normal(size=N)


@pytest.mark.parametrize(
    ("label", "classes"), [(YES, ("no", "yes")), (FIVE, tuple("abcde")), (VALUE, ())], ids=["two", "five", "values"]
)
def test_a_number_made_from_the_label_stops_and_is_named(label: np.ndarray, classes: tuple[str, ...]) -> None:
    leak = label * 3 + 0.001 * np.random.default_rng(0).normal(size=N)

    found = check_single_feature(table({"x": X, "leak": leak}, label, classes), SingleFeaturePolicy())

    assert (found.level, found.features, found.is_unmistakable) == ("stop", ("leak",), True)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_few_rows_that_a_feature_orders_perfectly_stop_whichever_way_it_runs(sign: float) -> None:
    few = X[:300]
    found = check_single_feature(table({"leak": sign * few}, (few > 0).astype(float)), SingleFeaturePolicy())
    assert (found.level, found.features) == ("stop", ("leak",))


def test_a_good_feature_is_no_leak() -> None:
    assert check_single_feature(table({"x": X}, YES), SingleFeaturePolicy()).level == "pass"


def test_a_category_that_names_the_class_and_one_that_is_not_monotone_are_found() -> None:
    folded = np.where(YES == 1, 0.0, np.random.default_rng(0).choice([-1.0, 1.0], N)) + 0.01 * X
    word = np.where(YES == 1, "late", "fine")

    found = check_single_feature(table({"x": X, "folded": folded, "word": word}, YES), SingleFeaturePolicy())

    assert set(found.features) == {"folded", "word"}


def test_a_leak_that_is_allowed_is_not_named() -> None:
    allowed = SingleFeaturePolicy(allow=("leak",))

    assert check_single_feature(table({"x": X, "leak": YES}, YES), allowed).level == "pass"


def test_few_rows_that_happen_to_be_told_apart_prove_nothing() -> None:
    label = np.zeros(400)
    label[:6] = 1

    assert check_single_feature(table({"x": label}, label), SingleFeaturePolicy()).level == "skipped"


def test_a_trace_is_looked_at_element_by_element() -> None:
    trace = np.random.default_rng(0).normal(size=(N, 4, 2))
    trace[:, 3, 1] += 30 * YES

    found = check_single_feature(table({"trace": trace}, YES), SingleFeaturePolicy())

    assert "trace[3,1]" in found.words
    assert found.features == ("trace",)


def test_patients_on_both_sides_of_the_split_are_named_and_shops_are_not() -> None:
    generator = np.random.default_rng(1)
    patient = np.empty(N, int)
    order = np.lexsort((generator.random(N), YES))
    patient[order] = np.arange(N) // 4
    shop = generator.integers(200, size=N)

    found = check_groups(table({"patient": [f"p{i}" for i in patient], "shop": shop}, YES), GroupsPolicy())

    assert (found.level, found.features) == ("stop", ("patient",))
    assert not found.is_unmistakable, "the same patients may come again"
    assert check_groups(table({"shop": shop}, YES), GroupsPolicy()).level == "pass"


def test_a_mean_over_the_rows_own_labels_is_found_and_one_of_earlier_rows_is_not() -> None:
    generator = np.random.default_rng(2)
    code = generator.integers(40, size=2 * N)
    rate = generator.uniform(0.2, 0.6, 40)
    label = (generator.random(2 * N) < rate[code]).astype(float)
    earlier = np.bincount(code[:N], label[:N], 40) / np.bincount(code[:N], minlength=40)
    own = np.bincount(code[N:], label[N:], 40) / np.bincount(code[N:], minlength=40)

    found = check_target_encoding(
        table({"own": 5 * own[code[N:]] + 1, "earlier": earlier[code[N:]]}, label[N:]), TargetEncodingPolicy()
    )

    assert (found.level, found.features) == ("stop", ("own",))


def test_an_encoding_of_the_training_rows_alone_is_found_too() -> None:
    code = np.random.default_rng(3).integers(40, size=N)
    plain = table({"code": code}, YES)
    train = ~plain.is_held_out_N
    mean = np.bincount(code[train], YES[train], 40) / np.bincount(code[train], minlength=40)

    assert check_target_encoding(table({"mean": mean[code]}, YES), TargetEncodingPolicy()).level == "stop"


def test_honest_rates_are_rarely_taken_for_encodings() -> None:
    generator = np.random.default_rng(4)
    ratios = []
    for _ in range(300):
        rate, count = generator.uniform(0.1, 0.9, 30), generator.integers(10, 60, 30)
        ratios.append(dispersion(rate, generator.binomial(count, rate) / count, count.astype(float)))

    assert min(ratios) == 1.0


class Revising(Given):
    """Its numbers are means over all rows that are known at the time of loading, later ones too."""

    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        rows = super().load(start_ms, end_ms, as_of_ms)
        code = rows.features["mean"].astype(int)
        mean = np.bincount(code, rows.label, 400) / np.maximum(1, np.bincount(code, minlength=400))
        return replace(rows, features={**rows.features, "mean": mean[code].astype(np.float32)})


class Handing(Given):
    """Holds rows as another task handed them out, and goes on asking that one."""

    def __init__(self, asked: Given) -> None:
        super().__init__(asked.load(0, 10**6 * DAY, 10**6 * DAY), asked.features, asked.classes)
        self.load = asked.load  # type: ignore[method-assign]


def loaded(task: Given) -> Table:
    return table_of(Handing(task))


def test_values_that_change_with_what_is_known_later_are_found() -> None:
    plain = given({"mean": np.random.default_rng(5).integers(400, size=N)}, YES)

    found = check_hindsight(loaded(Revising(plain.rows, plain.features, plain.classes)), HindsightPolicy())

    assert found.level in ("warn", "stop")
    assert found.features == ("mean",)
    assert len(found.rows)


def test_values_that_stay_pass_and_so_do_sums_in_another_order() -> None:
    plain = given({"x": X}, YES)

    class Noisy(Given):
        def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
            rows = super().load(start_ms, end_ms, as_of_ms)
            return replace(rows, features={"x": (rows.features["x"] * (1 + 1e-6 * len(rows) / N)).astype(np.float32)})

    assert check_hindsight(table_of(plain), HindsightPolicy()).level == "pass"
    assert check_hindsight(loaded(Noisy(plain.rows, plain.features, plain.classes)), HindsightPolicy()).level == "pass"


def test_labels_that_are_revised_are_told_as_such() -> None:
    plain = given({"x": X}, YES)

    class Settled(Given):
        def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
            rows = super().load(start_ms, end_ms, as_of_ms)
            return replace(rows, label=np.where(rows.time_ms < as_of_ms - 2 * DAY, rows.label, 0.0))

    found = check_hindsight(loaded(Settled(plain.rows, plain.features, plain.classes)), HindsightPolicy())

    assert found.level == "warn"
    assert "other times or labels" in found.words


def test_a_load_that_took_long_is_not_repeated() -> None:
    assert check_hindsight(table({"x": X}, YES), HindsightPolicy(), load_seconds=60.0).level == "skipped"


def test_how_long_the_label_took_is_not_known_before() -> None:
    plain = given({"x": X}, YES)
    delay = np.random.default_rng(6).integers(1, 50, N)
    rows = replace(
        plain.rows,
        features={"x": plain.rows.features["x"], "minutes": (delay * 60).astype(np.float32)},
        label_time_ms=plain.rows.time_ms + delay * 3_600_000,
    )
    specs = given({"x": X, "minutes": delay}, YES).features

    found = check_hindsight(table_of(Given(rows, specs, plain.classes)), HindsightPolicy())

    assert (found.level, found.features) == ("warn", ("minutes",))
