import msgspec
import numpy as np
import pytest

from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile, block_spread
from clipdrift_monitor.detectors.window_drift import DriftConfig, DriftReport, drift_of
from clipdrift_monitor.windows.window import Layout

SHARES = np.array([0.25, 0.25, 0.25, 0.25])
NUM_FEATURES = 20


def profile(slice_counts=(600, 400)):
    features = tuple(
        FeatureProfile(
            spec=FeatureSpec(name=f"f{i}", kind="numeric"), edges=(-1.0, 0.0, 1.0), counts=(2500,) * 4, num_missing=0
        )
        for i in range(NUM_FEATURES)
    )
    return ReferenceProfile(
        task="binary", features=features, slice_counts=slice_counts, num_rows=10_000,
        score_edges=(0.5,), score_counts=(7000, 3000),
    )  # fmt: skip


LAYOUT = Layout(profile())


def window(num_rows=1000, seed=1, **changed):
    """A window's sums with no drift but for the features and parts that are given."""
    random = np.random.default_rng(seed)
    sums = LAYOUT.zeros()
    sums[LAYOUT.head["num_predictions"]] = num_rows
    for name, part in LAYOUT.features.items():
        sums[part] = changed.get(name, [*random.multinomial(num_rows, SHARES), 0])
    sums[LAYOUT.score_reference] = changed.get("score", random.multinomial(num_rows, [0.7, 0.3]))
    return sums


DRIFT = DriftConfig()


def report(sums, mix=(600.0, 400.0), config=DRIFT):
    return drift_of(LAYOUT, sums, np.array(mix), 7, config)


def test_a_window_without_drift_names_nothing():
    found = [report(window(seed=seed)) for seed in range(60)]
    assert not [one.drifted for one in found if one.drifted]
    assert not [one.broken for one in found if one.broken]
    assert all(0 <= one.prediction < 0.1 for one in found)
    assert found[0].start_ms == 7


def test_few_rows_are_not_called_drift_however_far_they_lie():
    """A hundred rows of pure chance exceed the customary 0.1; the p-value keeps them out."""
    found = [report(window(num_rows=100, seed=seed), mix=(60.0, 40.0)) for seed in range(60)]
    assert max(max(one.features.values()) for one in found) > 0.1
    assert not [one.drifted for one in found if one.drifted]


def test_a_proven_and_large_change_is_named_and_no_other():
    found = report(window(f3=[600, 200, 100, 100, 0]))
    assert found.drifted == ("f3",)
    assert found.features["f3"] == max(found.features.values())


def test_a_change_of_scores_or_of_the_mix_is_named():
    assert report(window(score=[400, 600])).drifted == ("(prediction)",)
    assert report(window(), mix=(100.0, 900.0)).drifted == ("(slice mix)",)


def test_a_proven_change_below_the_smallest_worth_mentioning_is_not_named():
    sums = window(num_rows=100_000, f3=[30_000, 24_000, 23_000, 23_000, 0])
    assert report(sums, mix=(60_000.0, 40_000.0)).drifted == ()
    assert report(sums, mix=(60_000.0, 40_000.0), config=DriftConfig(min_score=0.01)).drifted == ("f3",)


def test_a_feed_that_is_gone_is_broken():
    (words,) = report(window(f2=[10, 10, 10, 10, 960])).broken
    assert words == "f2 is missing in 96% of rows (reference 0%)"


def test_a_feed_that_is_patchy_is_drift_and_not_broken():
    found = report(window(f2=[100, 100, 100, 100, 600]))
    assert found.broken == ()
    assert found.drifted == ("f2",)


@pytest.mark.parametrize("counts", [[1000, 0, 0, 0, 0], [0, 1000, 0, 0, 0], [0, 0, 0, 1000, 0]])
def test_one_value_all_day_is_drift_and_not_broken(counts):
    found = report(window(f5=counts))
    assert found.broken == ()
    assert found.drifted == ("f5",)


def with_one(feature, counts, num_missing=0):
    """The report of a window of 1,000 rows of one feature."""
    spec, reference = feature
    one = FeatureProfile(spec=spec, categories=("a", "b"), counts=reference, num_missing=num_missing)
    layout = Layout(msgspec.structs.replace(profile(), features=(one,)))
    sums = layout.zeros()
    sums[layout.head["num_predictions"]] = 1000
    sums[layout.features[spec.name]] = counts
    return drift_of(layout, sums, np.array([600.0, 400.0]), 0, DRIFT)


CARRIER = FeatureSpec(name="carrier", kind="categorical")


def test_categories_that_are_all_unknown_are_broken():
    (words,) = with_one((CARRIER, (600, 400, 0)), [0, 20, 980, 0]).broken
    assert words == "carrier has categories never seen in training in 98% of rows (reference 0%)"


@pytest.mark.parametrize("counts", [[1000, 0, 0, 0], [300, 200, 500, 0]])
def test_one_category_or_some_new_ones_are_not_broken(counts):
    assert with_one((CARRIER, (600, 400, 0)), counts).broken == ()


def test_what_was_mostly_unknown_or_missing_before_may_be_so_now():
    assert with_one((CARRIER, (100, 100, 800)), [0, 0, 1000, 0]).broken == ()
    assert with_one((CARRIER, (100, 100, 0)), [0, 0, 0, 1000]).broken
    assert with_one((CARRIER, (100, 100, 0)), [0, 0, 0, 1000], num_missing=800).broken == ()


def test_a_window_too_small_is_counted_and_not_compared():
    found = report(window(num_rows=99, f2=[0, 0, 0, 0, 99]))
    assert (found.num_rows, found.features, found.broken) == (99, {}, ())


def test_a_model_without_slices_has_no_mix_to_move():
    layout = Layout(profile(slice_counts=(1000,)))
    assert drift_of(layout, window(), np.array([1000.0]), 0, DRIFT).mix == 0.0


def test_every_comparison_is_kept_with_its_effect_its_p_value_and_words_where_it_is_drift():
    found = report(window(f3=[600, 200, 100, 100, 0]), config=DriftConfig(numeric=("ks", "wasserstein")))
    of_f3 = {one.detector: one for one in found.comparisons if one.feature == "f3"}
    assert set(of_f3) == {"jensen_shannon", "ks", "wasserstein"}
    assert all(one.is_drift and one.p_value < 1e-9 for one in of_f3.values())
    assert of_f3["ks"].words.startswith(
        "f3 has moved: ks 0.35, worth mentioning from 0.1; chance gives as much with probability"
    )
    assert found.features["f3"] == of_f3["jensen_shannon"].effect
    assert {one.words for one in found.comparisons if one.feature == "f4"} == {""}
    assert {one.detector for one in found.comparisons if one.feature == "(slice mix)"} == {"jensen_shannon"}


def test_the_smallest_effect_of_a_detector_is_the_policys():
    sums = window(f3=[600, 200, 100, 100, 0])
    assert report(sums, config=DriftConfig(min_score=0.5, numeric=("ks",), min_effect={"ks": 0.4})).drifted == ()
    assert report(sums, config=DriftConfig(min_score=0.5, numeric=("ks",), min_effect={"ks": 0.3})).drifted == ("f3",)


def days_that_differ(random, num_days):
    """Windows whose feature f1 moves from day to day, without getting anywhere."""
    shares = random.dirichlet(np.full(4, 10.0), num_days)
    return [window(seed=int(random.integers(1e9)), f1=[*random.multinomial(1000, one), 0]) for one in shares]


def with_spread(days):
    counts = np.array([day[LAYOUT.features["f1"]] for day in days])
    features = tuple(
        msgspec.structs.replace(one, counts=tuple(map(int, counts.sum(axis=0)[:-1])), spread=block_spread(counts))
        if one.spec.name == "f1"
        else one
        for one in LAYOUT.profile.features
    )
    return Layout(msgspec.structs.replace(LAYOUT.profile, features=features))


def test_days_that_always_differ_are_no_drift_where_the_reference_or_the_windows_before_show_it():
    random = np.random.default_rng(4)
    naive = known = seen = 0
    for _ in range(15):
        before, now = days_that_differ(random, 14), days_that_differ(random, 1)[0]
        mix = np.array([600.0, 400.0])
        naive += "f1" in drift_of(LAYOUT, now, mix, 0, DRIFT).drifted
        known += "f1" in drift_of(with_spread(before), now, mix, 0, DRIFT).drifted
        seen += "f1" in drift_of(LAYOUT, now, mix, 0, DRIFT, before).drifted
    assert naive >= 5
    assert (known, seen) == (0, 0)


def test_a_change_beyond_what_days_differ_by_is_drift_and_says_so():
    before = days_that_differ(np.random.default_rng(4), 14)
    layout = with_spread(before)
    found = drift_of(layout, window(f1=[0, 0, 10, 990, 0]), np.array([600.0, 400.0]), 0, DRIFT)
    assert found.drifted == ("f1",)
    assert "chance among days that differ" in next(one.words for one in found.comparisons if one.is_drift)


def test_a_rise_of_missing_values_or_of_new_categories_is_told_with_both_shares():
    (moved,) = report(window(f2=[225, 225, 225, 225, 100])).moved
    assert moved.words == "f2 is missing in 10.0% of rows (reference 0.0%)."
    assert (moved.what, moved.share) == ("missing", 0.1)
    (moved,) = with_one((CARRIER, (600, 390, 10)), [550, 350, 100, 0]).moved
    assert (moved.what, moved.words) == (
        "new_categories",
        "carrier has categories that training did not list in 10.0% of rows (1.0%).",
    )


def test_a_share_that_chance_gives_or_that_is_small_is_not_told():
    assert not report(window(f2=[249, 250, 250, 250, 1])).moved
    assert not report(window(num_rows=100_000, f2=[24_750, 24_750, 24_750, 24_750, 1_000])).moved
    assert not with_one((CARRIER, (600, 300, 100)), [600, 390, 10, 0]).moved


def test_a_report_of_before_loads():
    old = {
        "start_ms": 5,
        "features": {"x": 0.2},
        "prediction": 0.1,
        "mix": 0.0,
        "drifted": ["x"],
        "broken": [],
        "num_rows": 900,
    }
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=DriftReport)
    assert (read.drifted, read.comparisons, read.moved) == (("x",), (), ())
