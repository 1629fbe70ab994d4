"""How loud a signal is, and how many comparisons a note has to stand out of, follow from the policy."""

import msgspec
import pytest
from court import Court
from dialogue import POLICY, rows

from clipdrift_monitor.risk.budget import Allotment, Budget
from clipdrift_monitor.risk.severity import Severities


@pytest.mark.parametrize("severity", ["page", "ticket", "note"])
def test_a_signal_is_as_loud_as_the_policy_says(severity):
    policy = msgspec.structs.replace(POLICY, severity=Severities(data_broken=severity))
    columns = rows(2)
    columns["pressure"] = columns["pressure"] * float("nan")
    told = Court(policy).judge(2, columns)
    (broken,) = [signal for signal in told.signals if signal.kind == "data_broken"]
    assert broken.severity == severity


def test_a_drift_that_one_look_in_a_few_shows_is_no_note_where_many_models_are_looked_at_for_years():
    def notes(allotment):
        court = Court()
        court.subject = msgspec.structs.replace(court.subject, allotment=allotment)
        columns = rows(2)
        columns["pressure"] = columns["pressure"] + 0.3
        told = court.judge(2, columns)
        return [signal for signal in told.signals if signal.kind == "feature_drift"]

    assert notes(Allotment(budget=Budget(days_per_false_note=1.0)))
    assert not notes(Allotment(budget=Budget(days_per_false_note=3_650.0), num_models=1_000))
