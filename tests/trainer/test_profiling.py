"""The reference profile holds what the held-out rows looked like, and every row is counted once."""

import numpy as np
import pytest
from toy_task import Toy

from clipdrift_contract.profile import FeatureSpec, ReferenceProfile, bin_index
from clipdrift_trainer.profiling import _derived, make_profile
from clipdrift_trainer.tasks.task import Rows, vocabularies_of


@pytest.fixture(scope="module")
def rows() -> Rows:
    return Toy().make(20)


@pytest.fixture(scope="module")
def profile(rows: Rows) -> ReferenceProfile:
    one_N = np.random.default_rng(0).random(len(rows))
    task = Toy()
    return make_profile(task, rows, np.stack([1 - one_N, one_N], axis=1), vocabularies_of(task, rows))


def test_every_row_is_in_one_bin_of_each_feature_or_missing(profile: ReferenceProfile, rows: Rows) -> None:
    for feature in profile.features:
        assert sum(feature.counts) + feature.num_missing == len(rows)
        assert len(feature.counts) == feature.num_bins
    assert sum(profile.slice_counts) == sum(profile.score_counts) == sum(profile.label_counts) == len(rows)


def test_missing_numbers_are_counted_apart(profile: ReferenceProfile, rows: Rows) -> None:
    pressure = next(feature for feature in profile.features if feature.spec.name == "pressure")

    assert pressure.num_missing == int(np.isnan(rows.features["pressure"]).sum()) > 0


def test_numeric_bins_hold_about_as_many_rows_each(profile: ReferenceProfile) -> None:
    pressure = next(feature for feature in profile.features if feature.spec.name == "pressure")

    assert pressure.num_bins == 16
    assert max(pressure.counts) - min(pressure.counts) <= 2


def test_counts_equal_what_the_contracts_bins_give_for_the_same_rows(profile: ReferenceProfile, rows: Rows) -> None:
    for feature in profile.features:
        bins = bin_index(feature, rows.features[feature.spec.name])
        assert np.bincount(bins[bins >= 0], minlength=feature.num_bins).tolist() == list(feature.counts)


def test_a_number_with_few_values_gets_a_bin_each_and_one_below(rows: Rows) -> None:
    for values, num_bins in ((np.array([0.0, 1.0]), 3), (np.array([5.0]), 2), (np.array([np.nan]), 2)):
        features = {**rows.features, "pressure": np.resize(values, len(rows)).astype(np.float32)}
        changed = Rows(features, rows.label, rows.time_ms, rows.label_time_ms)
        found = make_profile(Toy(), changed, np.full((len(rows), 2), 0.5), vocabularies_of(Toy(), rows))
        pressure = next(feature for feature in found.features if feature.spec.name == "pressure")
        assert pressure.num_bins == num_bins
        assert sum(pressure.counts) + pressure.num_missing == len(rows)


def test_the_score_is_the_probability_of_class_one_of_the_predicted_class_or_the_value(rows: Rows) -> None:
    class Three(Toy):
        kind = "multiclass"
        classes = ("a", "b", "c")

    class Level(Toy):
        kind = "regression"
        classes = ()

    words = vocabularies_of(Toy(), rows)
    binary = make_profile(Toy(), rows, np.tile([0.9, 0.1], (len(rows), 1)), words)
    three = make_profile(Three(), rows, np.tile([0.7, 0.2, 0.1], (len(rows), 1)), words)
    level = make_profile(Level(), rows, np.linspace(-5, 5, len(rows))[:, None], words)

    assert np.flatnonzero(binary.score_counts).tolist() == [2]  # [.10, .15)
    assert np.flatnonzero(three.score_counts).tolist() == [14]  # [.70, .75)
    assert len(level.score_counts) == 16
    assert (level.label_counts, level.classes) == ((), ())
    assert level.label_low < level.label_high


def test_how_much_days_differ_is_kept_with_the_counts(profile: ReferenceProfile, rows: Rows) -> None:
    assert {feature.spread.num_blocks for feature in profile.features} == {20}
    hour_N = (rows.time_ms // 86_400_000 * 10.0) % 70  # one value a day, as a weekday is
    name = next(feature.spec.name for feature in profile.features if feature.spec.kind == "numeric" and not feature.spec.shape)
    moved = Rows({**rows.features, name: hour_N}, rows.label, rows.time_ms, rows.label_time_ms)
    found = make_profile(Toy(), moved, np.full((len(rows), 2), 0.5), vocabularies_of(Toy(), rows))
    before, after = (next(f for f in one.features if f.spec.name == name).spread for one in (profile, found))
    assert after.total > 20 * before.total + 1


def test_last_steps_norms_missing_steps_and_lengths_of_texts_are_watched_beside_the_inputs() -> None:
    random = np.random.default_rng(1)
    steps = random.normal(size=(500, 8, 2)).astype(np.float32)
    steps[::10, :4] = np.nan
    columns = {
        "readings": (FeatureSpec(name="readings", kind="sequence", nullable=True, shape=(8, 2)), steps),
        "embedding": (
            FeatureSpec(name="embedding", kind="sequence", shape=(64,)),
            random.normal(size=(500, 64)).astype(np.float32),
        ),
        "note": (
            FeatureSpec(name="note", kind="categorical"),
            np.array(["x" * n for n in random.integers(10, 60, 500)], object),
        ),
        "site": (FeatureSpec(name="site", kind="categorical"), np.array(["north", "south"] * 250, object)),
    }
    made = [one for spec, column in columns.values() for one in _derived(spec, column, np.arange(500) // 50)]

    names = ["readings (last)", "readings (missing)", "embedding (norm)", "note (length)"]
    assert [(one.spec.name, one.column) for one in made] == [(name, name.split()[0]) for name in names]
    for one in made:
        assert sum(one.counts) + one.num_missing == 500
        assert len(one.counts) == one.num_bins
        assert one.spread.num_blocks == 10
    by_name = {one.spec.name: one for one in made}
    assert by_name["readings (missing)"].counts == (450, 0, 0, 50, 0, 0)
    assert by_name["embedding (norm)"].num_bins == 16
