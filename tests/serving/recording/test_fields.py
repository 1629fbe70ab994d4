"""What must not leave the process does not, and what is recorded in its place counts as it would have."""

import hashlib
import hmac
import logging

import numpy as np
import pytest
from toy_service import PROFILE, KeptEvents

from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile, bin_index
from clipdrift_serving.recording.fields import FieldPolicy, FieldRule, Fields, bucketed
from clipdrift_serving.recording.recorder import Predicted, Recorder

KEY = "5c" * 32
FEATURES = {
    "x": np.array([0.5, np.nan, -3.0], "f4"),
    "carrier": np.array(["UA", "zz top", ""], object),
    "email": np.array(["ann@example.org", "", "ann@example.org"], object),
}


def _apply(*rules, profile=PROFILE, features=FEATURES, model="toy", **policy):
    key = KEY if any(rule.action == "hmac" for rule in rules) else ""
    return Fields(FieldPolicy(rules=rules, hmac_key=key, **policy)).apply(model, profile, features)


def test_without_a_rule_what_the_profile_declares_is_kept_and_all_else_dropped():
    recorded = _apply()
    assert list(recorded) == ["x", "carrier"]
    assert all(recorded[name] is FEATURES[name] for name in recorded)


def test_a_model_without_a_profile_declares_nothing():
    assert _apply(profile=None) == {}
    assert list(_apply(FieldRule(feature="email", action="keep"), profile=None)) == ["email"]


def test_a_policy_can_deny_declared_features_too():
    assert list(_apply(FieldRule(feature="x", action="keep"), keep_declared=False)) == ["x"]


def test_a_rule_for_one_model_goes_before_one_for_all():
    rules = FieldRule(feature="x", action="keep"), FieldRule(feature="x", action="drop", model="toy")
    assert "x" not in _apply(*rules)
    assert "x" not in _apply(*reversed(rules))
    assert "x" in _apply(*rules, model="another")


def test_a_hashed_value_is_the_keyed_hmac_of_feature_and_value_under_a_name_of_its_own():
    recorded = _apply(FieldRule(feature="email", action="hmac"), FieldRule(feature="x", action="hmac"))
    expected = hmac.new(bytes.fromhex(KEY), b"email\0ann@example.org", hashlib.sha256).hexdigest()[:16]
    assert recorded["email#hmac"].tolist() == [expected, "", expected]
    digits = recorded["x#hmac"].tolist()
    assert digits[1] == ""
    assert digits[0] == hmac.new(bytes.fromhex(KEY), b"x\x000.5", hashlib.sha256).hexdigest()[:16]
    assert "email" not in recorded
    assert "x" not in recorded


def test_bytes_and_text_of_one_value_hash_alike_and_two_features_do_not():
    features = {"a": np.array([b"v", "v"], object), "b": np.array(["v", "\ud800"], object)}
    recorded = _apply(FieldRule(feature="a", action="hmac"), FieldRule(feature="b", action="hmac"), features=features)
    assert recorded["a#hmac"][0] == recorded["a#hmac"][1] != recorded["b#hmac"][0]


def test_categories_that_the_profile_knows_are_kept_and_what_a_user_typed_is_not():
    features = {"carrier": np.array(["UA", "my name is Ann", "", b"AA", None], object)}
    recorded = _apply(FieldRule(feature="carrier", action="known"), features=features)
    assert recorded["carrier"].tolist() == ["UA", "(other)", "", "AA", "(other)"]
    carrier = PROFILE.features[2]
    assert (
        bin_index(carrier, recorded["carrier"]).tolist()
        == bin_index(carrier, np.array(["UA", "?", "", "AA", None], object)).tolist()
    )


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_buckets_of_the_profile_count_exactly_as_the_values_would(dtype):
    rng = np.random.default_rng(3)
    edges = tuple(sorted(rng.normal(size=9).tolist()))
    of = FeatureProfile(spec=FeatureSpec(name="x", kind="numeric"), edges=edges)
    values = np.concatenate([rng.normal(size=2000) * 3, np.array(edges), [0.0]]).astype(dtype)
    if dtype != "i8":
        values = np.concatenate([values, np.array([np.nan, np.inf, -np.inf], dtype)])
    recorded = bucketed(of, 0.0, values)
    assert (bin_index(of, recorded) == bin_index(of, values)).all()
    assert len(np.unique(recorded[np.isfinite(recorded)])) <= len(edges) + 1


def test_a_sequence_in_buckets_is_one_number_a_row_that_counts_as_it_would():
    of = FeatureProfile(spec=FeatureSpec(name="s", kind="sequence", shape=(8, 2)), edges=(-0.2, 0.1))
    values = np.random.default_rng(4).normal(size=(200, 8, 2))
    values[0] = np.nan
    recorded = bucketed(of, 0.0, values)
    assert recorded.shape == (200,)
    assert (bin_index(of, recorded) == bin_index(of, values)).all()


def test_buckets_of_a_width_are_the_multiple_below():
    recorded = bucketed(None, 10.0, np.array([0.0, 9.99, -0.01, 25.0, np.nan, np.inf], "f4"))
    np.testing.assert_array_equal(recorded, [0.0, 0.0, -10.0, 20.0, np.nan, np.inf])


@pytest.mark.parametrize(
    ("rule", "feature"),
    [
        ({"action": "bucket", "width": 5.0}, "carrier"),
        ({"action": "bucket"}, "email"),
        ({"action": "known"}, "x"),
        ({"action": "known"}, "email"),
        ({"action": "hmac"}, "block"),
    ],
)
def test_what_a_rule_cannot_do_drops_the_feature_and_says_so_once(caplog, rule, feature):
    features = {**FEATURES, "block": np.zeros((3, 4), "f4")}
    fields = Fields(FieldPolicy(rules=(FieldRule(feature=feature, **rule),), hmac_key=KEY))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert feature not in fields.apply("toy", PROFILE, features)
    assert len([record for record in caplog.records if feature in record.getMessage()]) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: FieldRule(feature="", action="drop"),
        lambda: FieldRule(feature="x", action="bucket", width=-1.0),
        lambda: FieldRule(feature="x", action="bucket", width=float("nan")),
        lambda: FieldRule(feature="x", action="keep", width=1.0),
        lambda: Fields(FieldPolicy(rules=(FieldRule(feature="x", action="hmac"),))),
        lambda: FieldPolicy(rules=(FieldRule(feature="x", action="hmac"),), hmac_key="5c" * 15),
        lambda: FieldPolicy(hmac_key="not hex"),
        lambda: FieldPolicy(rules=(FieldRule(feature="x", action="keep"), FieldRule(feature="x", action="drop"))),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(make):
    with pytest.raises(ValueError, match=r"name of a feature|width|hex digits|two rules|needs a key"):
        make()


def test_the_key_is_never_shown():
    policy = FieldPolicy(rules=(FieldRule(feature="x", action="hmac"),), hmac_key=KEY)
    assert KEY not in f"{policy!r} {policy} {Fields(policy)!r}"


def test_the_recorder_applies_it_to_what_it_writes():
    spool = KeptEvents()
    fields = Fields(FieldPolicy(rules=(FieldRule(feature="carrier", action="known"),)))
    recorder = Recorder(spool, "0123456789abcdef", MetricSet(), 1000, fields=fields)
    rows = np.arange(3)
    recorder.add(
        Predicted(
            "toy", "v1", "champion", 1, rows.astype("u8"), rows, np.zeros(3, "i2"), np.zeros(3), np.zeros((3, 2), "f4"),
            FEATURES, (), PROFILE,
        )
    )  # fmt: skip
    recorder.flush()
    recorded = {column.name: column.values.array().tolist() for column in spool.events[0].features}
    assert recorded["carrier"] == ["UA", "(other)", ""]
    assert sorted(recorded) == ["carrier", "x"]


def test_a_missing_number_and_the_word_nan_are_not_taken_for_each_other():
    features = {"x": np.array([np.nan]), "name": np.array(["nan"], object)}
    fields = Fields(
        FieldPolicy(rules=(FieldRule(feature="x", action="hmac"), FieldRule(feature="name", action="hmac")), hmac_key=KEY)
    )
    for given in (features, {"x": np.array(["nan"], object), "name": np.array([np.nan])}):
        recorded = {name: values.tolist()[0] for name, values in fields.apply("m", None, given).items()}
        assert [bool(digits) for digits in recorded.values()] == [given[name].dtype == object for name in given]


def test_two_profiles_are_never_mixed_up():
    fields = Fields(FieldPolicy())
    for number in range(600):  # more than are remembered; each is gone before the next is made
        name = f"x{number}"
        profile = ReferenceProfile(
            task="binary", features=(FeatureProfile(spec=FeatureSpec(name=name, kind="numeric"), edges=(0.0,)),)
        )
        assert list(fields.apply("m", profile, {name: np.zeros(1), "x0" if number else "y": np.zeros(1)})) == [name]
