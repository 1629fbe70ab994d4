"""The summary for somebody who has never trained a model."""

import msgspec
import pytest
import tiny_demo as tiny

from clipdrift_deploy.demo import words
from clipdrift_deploy.demo.figures import Share
from clipdrift_deploy.demo.result import Control, ModelResult, Result


def result_with(**changes: object) -> Result:
    base = tiny.result()
    model: ModelResult = msgspec.structs.replace(base.models["one"], **changes)
    return msgspec.structs.replace(base, models={"one": model})


def test_it_is_six_points_without_a_gap() -> None:
    said = words.summary(tiny.result())

    assert len(said) == 6
    assert "2,440 times for March to April" in said[0]
    assert all(sentence.endswith(".") and ".." not in sentence and "None" not in sentence for sentence in said)


def test_it_says_how_much_was_won_back_and_how_often() -> None:
    said = words.summary(result_with(recovered_share=Share(auc=0.8, nll=None)))[2]

    assert "replaced one once and won back 80% of the lost ranking (AUC)" in said
    assert "log loss" not in said


def test_it_does_not_boast_where_nothing_was_won_back() -> None:
    said = words.summary(result_with(recovered_share=Share(auc=None, nll=None), retrains=()))[2]

    assert "replaced one 0 times and won back nothing" in said


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("implicated", "was holding it back"),
        ("associated", "no retrain has shown that it is the cause"),
        ("not_implicated", "has nothing to do with it"),
        ("unknown", "could not be told"),
    ],
)
def test_it_says_of_clipping_what_was_found_and_no_more(verdict: str, expected: str) -> None:
    assert expected in words.summary(result_with(diagnosis=verdict))[4]


def test_it_confesses_false_alarms_on_the_control() -> None:
    quiet = words.summary(tiny.result())[5]
    loud = words.summary(result_with(control=Control(num_labels=1200, num_alarms=2, num_retrains=1)))[5]

    assert "nothing changed (1,200 predictions) it stayed silent" in quiet
    assert "2 alarms and 1 retrains: too many" in loud


def test_the_table_has_a_row_a_month_and_a_dash_for_what_is_not_known() -> None:
    model = tiny.result().models["one"]
    blank = msgspec.structs.replace(model.months[0].live, auc=None)
    months = (msgspec.structs.replace(model.months[0], live=blank), *model.months[1:])

    rows = words.table_rows(msgspec.structs.replace(model, months=months))

    assert [row[:2] for row in rows] == [["2013-03", "1,240"], ["2013-04", "1,200"]]
    assert {len(row) for row in rows} == {2 + 4 * 3}
    assert rows[0][6] == "-"
    assert rows[1][3] == f"{model.months[1].live.accuracy:.3f}"


def test_totals_are_weighted_by_rows() -> None:
    months = tiny.result().models["one"].months

    total = words.total(months)

    assert total["live"].nll == pytest.approx(sum(one.live.nll * one.n for one in months) / sum(one.n for one in months))
    assert total["oracle"].auc == pytest.approx(sum(one.oracle.auc or 0.0 for one in months) / 2)
