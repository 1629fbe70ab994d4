"""The answer in simulated histories of a model whose truth is known."""

import msgspec
import numpy as np
import pytest
from scipy import stats

from clipdrift_contract.events import Contrast
from clipdrift_monitor.clipping.association import LEVEL, MIN_VERSIONS, Association, associate
from clipdrift_monitor.clipping.evidence import ClippingEvidence
from clipdrift_monitor.clipping.seen import SeenSlice, SeenVersion

MARGIN = 0.0005
WEEK = 7 * 86_400_000


def evidence(difference=None, half=0.0004, **changes):
    """SGD with a norm bound; `difference`: what a shadow retrain with another threshold found, in Brier score."""
    contrast = None
    if difference is not None:
        contrast = Contrast(
            slice="", num_rows=900, num_blocks=9, metric="brier", difference=difference, low=difference - half,
            high=difference + half,
        )  # fmt: skip
    fields = {
        "is_adaptive": False, "is_norm_clipped": True, "is_strong": True, "has_fault": False, "removed_mass_ratio": 0.9,
        "clip_rate_ratio": 1.0, "best_arm": "q90" if contrast else "", "best_contrast": contrast,
    }  # fmt: skip
    return ClippingEvidence(**{**fields, **changes})


ADAM = {"is_adaptive": True}


def history(seed, num=40, *, link=0.0, lead=0, bounds=(0.1, 0.2, 0.4), is_trending=True, num_slices=0):
    """A version a week. Removed mass and harm both grow; `link`: what of the harm's changes follows removed mass, or (with
    `lead` 1) of removed mass the harm of the version before."""
    g = np.random.default_rng((20, seed))
    trend = 0.004 * np.arange(num) * is_trending
    mass = 0.4 + trend + 0.05 * g.normal(size=num)
    own = 0.5 * trend + 0.02 * g.normal(size=num)
    harm = own + link * (np.roll(mass, -lead) - 0.4)
    drift = 0.05 + trend + 0.02 * g.normal(size=num)
    bound = np.array([bounds[i % len(bounds)] for i in g.permutation(num)])
    hard_S = g.uniform(0.05, 0.4, size=num_slices)
    found = []
    for i in range(num):
        slices = {
            f"s{s:02d}": SeenSlice(
                removed_mass_ratio=0.5 + hard + 0.02 * g.normal(), mass_share=1 / num_slices,
                validated_error=hard + 0.01 * g.normal(), num_train=500, num_labels=100.0,
                num_correct=100 * (1 - hard - 0.3 * hard - 0.02 * g.normal()),
            )
            for s, hard in enumerate(hard_S)
        }  # fmt: skip
        found.append(
            SeenVersion(
                version=f"v{i}", as_of_ms=i * WEEK, clip_kind="global_norm", max_norm=float(bound[i]),
                removed_mass_ratio=float(mass[i]), clip_rate_ratio=float(np.clip(mass[i] + 0.1 * g.normal(), 0, 1)),
                learning_rate=0.1, median_norm=float(np.exp(0.3 * g.normal())), validated_brier=0.1 + 0.001 * g.normal(),
                slices=slices, num_blocks=7, num_labels=700, brier_sum=700 * float(0.1 + harm[i]),
                feature_drift_sum=7 * float(drift[i]), prediction_drift_sum=7 * 0.02, mix_drift_sum=7 * 0.01,
            )
        )  # fmt: skip
    return found


def answers(num_seeds, given, **how) -> list[Association]:
    return [associate(history(seed, **how), given, MARGIN) for seed in range(num_seeds)]


def test_trends_of_drift_harm_and_clipping_that_have_nothing_to_do_with_each_other_are_no_association():
    num_seeds = 60
    found = [any(link.is_found for link in one.links) for one in answers(num_seeds, evidence())]
    assert sum(found) <= stats.binom.ppf(0.999, num_seeds, LEVEL)


def test_concept_drift_under_many_thresholds_is_not_laid_on_clipping():
    told = [one.answer for one in answers(30, evidence(), num=60)]
    assert told.count("not_implicated") >= 26
    assert set(told) <= {"not_implicated", "associated_only"}


def test_concept_drift_that_a_shadow_retrain_has_judged_is_not_laid_on_clipping_however_few_the_versions():
    told = associate(history(1, num=3), evidence(difference=0.001), MARGIN)
    assert told.answer == "not_implicated"
    assert "the model is no better" in told.words


def test_a_planted_link_is_associated_only_and_says_what_would_tell():
    told = answers(15, evidence(), link=1.0)
    assert [one.answer for one in told].count("associated_only") >= 13
    one = next(one for one in told if one.answer == "associated_only")
    assert (one.links[0].figure, one.links[0].outcome, one.links[0].lag) == ("removed_mass", "harm", 0)
    assert "shadow retrain" in one.would_tell
    assert "removed gradient mass and loss beyond validation go together" in one.words


def test_harm_that_comes_before_the_clipping_is_found_one_version_before():
    told = answers(10, evidence(), link=1.0, lead=1)
    lags = [one.links[0].lag for one in told if one.answer == "associated_only" and one.links[0].outcome == "harm"]
    assert len(lags) >= 8
    assert set(lags) == {1}


def test_it_is_associated_only_where_a_twin_that_was_clipped_less_decays_alike():
    told = answers(15, evidence(difference=0.0), link=1.0)
    assert [one.answer for one in told].count("associated_only") >= 13
    assert all("fares no better" in one.words for one in told if one.answer == "associated_only")


def test_only_a_shadow_retrain_implicates():
    for how in ({"link": 1.0}, {"num": 2}):
        told = associate(history(3, **how), evidence(difference=-0.01), MARGIN)
        assert told.answer == "implicated_by_shadow_retrain"
        assert told.verdict == "implicated"
        assert "-0.0100 [-0.0104, -0.0096]" in told.words


@pytest.mark.parametrize("changes", [ADAM, {"is_idle": True}])
def test_adam_with_a_common_factor_and_idle_clipping_are_not_implicated_whatever_goes_together(changes):
    for link in (0.0, 1.0):
        told = associate(history(3, link=link), evidence(**changes), MARGIN)
        assert told.answer == "not_implicated"
        assert told.would_tell == ""


def test_adam_that_clips_each_entry_can_be_associated():
    given = evidence(**ADAM, is_norm_clipped=False)
    assert associate(history(3, link=1.0), given, MARGIN).answer == "associated_only"


def test_few_versions_cannot_tell_and_say_how_many_more_would():
    for num in (0, 1, MIN_VERSIONS - 1):
        told = associate(history(1, num=num, link=1.0), evidence(), MARGIN)
        assert (told.answer, told.verdict, told.detectable) == ("cannot_tell", "unknown", None)
        assert f"{MIN_VERSIONS - num} more versions" in told.would_tell
        assert "shadow retrain" in told.would_tell


def test_one_threshold_for_ever_cannot_tell_however_many_the_versions():
    told = [one for one in answers(10, evidence(), bounds=(0.1,), num=60) if one.answer != "associated_only"]
    assert len(told) >= 8
    assert {one.answer for one in told} == {"cannot_tell"}
    assert all("versions with other thresholds" in one.would_tell for one in told)


def test_versions_with_hardly_a_label_do_not_count():
    seen = [msgspec.structs.replace(one, num_labels=10) for one in history(3, link=1.0)]
    assert associate(seen, evidence(), MARGIN).num_versions == 0


def test_hard_slices_are_clipped_more_and_decay_more_and_are_no_association():
    told = answers(20, evidence(), num=6, num_slices=12)
    assert {one.num_slices for one in told} == {12}
    assert [one.answer for one in told].count("associated_only") <= 3


def test_it_is_told_what_was_held():
    told = associate(history(3), evidence(), MARGIN)
    assert told.held == ("validated loss", "time of year")  # the learning rate never changed: there is nothing to hold


def test_a_history_with_holes_and_infinite_norms_is_judged_all_the_same():
    seen = [
        msgspec.structs.replace(one, max_norm=None, median_norm=0.0, validated_brier=None, removed_mass_ratio=float("nan"))
        for one in history(3)
    ]
    told = associate(seen, evidence(), MARGIN)
    assert told.answer in ("cannot_tell", "associated_only")
    assert msgspec.json.decode(msgspec.json.encode(told), type=Association) == told
