import msgspec

from clipdrift_contract.events import (
    Calibration,
    ClipSpec,
    HiddenSlice,
    Membership,
    PrivacyBudget,
    RunEnd,
    ScoreInterval,
    SliceScore,
)
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_deploy.validation_words import validation_words

RUN = RunEnd(
    run_id="r", model="pump", version="v", started_at_ms=0, ended_at_ms=1, data_start_ms=0, data_end_ms=1, as_of_ms=1,
    data_digest="d", code_revision="c", seed=0, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(), num_steps=1,
    validation=(SliceScore(slice="", num_rows=2_000, num_correct=1_560, nll_sum=900.0, brier_sum=300.0, ece=0.02),),
)  # fmt: skip
INTERVAL = ScoreInterval(slice="", metric="accuracy", value=0.78, low=0.7712, high=0.7888, num_rows=2_000, num_blocks=9)
GAIN = Calibration(temperature=1.4, nll_before=0.46, nll_after=0.44, ece_before=0.05, ece_after=0.01, num_rows=2_000)


def with_(**fields):
    return msgspec.structs.replace(RUN, **fields)


def test_the_figure_comes_with_its_interval():
    assert validation_words(with_(intervals=(INTERVAL,))) == "accuracy 0.780 [0.771, 0.789] on 2,000 held-out rows"


def test_an_interval_that_says_nothing_is_left_out():
    of_one_day = msgspec.structs.replace(INTERVAL, low=0.0, high=1.0, num_blocks=1)
    assert validation_words(with_(intervals=(of_one_day,))) == "accuracy 0.780 on 2,000 held-out rows"
    assert validation_words(RUN) == "accuracy 0.780 on 2,000 held-out rows"


def test_a_hidden_slice_has_a_line_of_its_own():
    hidden = HiddenSlice(
        slice="JFK", metric="brier", value=0.3, overall=0.15, difference_low=0.1, difference_high=0.2, share_of_rows=0.04,
        words="slice JFK is worse",
    )  # fmt: skip
    assert validation_words(with_(hidden_slices=(hidden,))).splitlines()[1:] == ["hidden: slice JFK is worse"]


def test_a_temperature_is_offered_where_it_gains_and_none_is_used():
    offered = validation_words(with_(calibration=GAIN)).splitlines()[1]
    assert "temperature of 1.40 takes the log loss from 0.4600 to 0.4400" in offered
    assert "calibrate = true" in offered
    for other in (
        with_(calibration=GAIN, temperature=1.4),
        with_(calibration=msgspec.structs.replace(GAIN, nll_after=0.459)),
        RUN,
    ):
        assert len(validation_words(other).splitlines()) == 1


def test_it_says_which_weights_were_kept_where_8_bits_were_asked_for():
    told = validation_words(with_(precision_words="no LSTM layers")).splitlines()
    assert told[1:] == ["stored as float32: no LSTM layers"]


def test_regression_tells_the_mean_absolute_error():
    score = SliceScore(slice="", num_rows=10, num_correct=0, nll_sum=0, brier_sum=0, ece=0, absolute_error_sum=12.0)
    interval = msgspec.structs.replace(INTERVAL, metric="mae", low=1.0, high=1.5)
    told = validation_words(with_(validation=(score,), intervals=(interval,), profile=ReferenceProfile(task="regression")))
    assert told == "mean absolute error 1.2 [1, 1.5] on 10 held-out rows"


def test_a_run_clipped_by_sample_says_what_its_temperature_repaired():
    clip = ClipSpec(kind="per_sample", max_norm=1.0)
    told = validation_words(with_(clip=clip, calibration=GAIN, temperature=1.4)).splitlines()
    assert "temperature of 1.40 takes the calibration error from 0.050 to 0.010" in told[1]


def test_a_private_run_says_what_it_spent_and_what_an_attack_finds():
    budget = PrivacyBudget(
        epsilon=0.534, delta=2.72e-6, noise_multiplier=1.0, max_norm=0.25, sample_rate=0.003, num_steps=600, accountant="prv"
    )
    attack = Membership(auc=0.51, auc_low=0.48, auc_high=0.54, tpr_at_fpr_1=0.012, num_members=9, num_others=9)
    assert validation_words(with_(privacy=budget, membership=attack)).splitlines()[1:] == [
        "private: epsilon 0.53 at delta 2.7e-06 for one row, by prv",
        "membership by the loss: AUC 0.510 [0.480, 0.540] (0.5 is a guess), 1.2% found at 1 % false alarms",
    ]
