"""Selectors can only be made from what exists."""

import pytest

from clipdrift_contract.metrics import MODEL_ACCURACY, MODEL_HARM_EVIDENCE
from clipdrift_dashboards.promql import any_of, newest, select
from clipdrift_dashboards.promql_names import problems


def test_a_label_that_the_metric_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has the labels model, slice, not run_id"):
        select(MODEL_ACCURACY, run_id="7")


@pytest.mark.parametrize("values", [(), ("a|b",), (".*",)])
def test_a_choice_is_of_plain_words(values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must be words"):
        any_of(*values)


def test_a_selector_parses_and_names_only_what_exists() -> None:
    assert problems(newest(MODEL_HARM_EVIDENCE, "model", test=any_of("repairable", "sudden_break"))) == []


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("clipdrift_model_acuracy_ratio", "metric clipdrift_model_acuracy_ratio"),
        ('clipdrift_model_live_nll_nats{slice="a"}', "label slice of clipdrift_model_live_nll_nats"),
        ("sum by (version) (clipdrift_model_live_nll_nats)", "grouping label version"),
        ("clipdrift_model_live_nll_nats and on (run) clipdrift_model_live_brier_score", "grouping label run"),
        ("rate(clipdrift_serving_request_duration_seconds[5m])", "metric clipdrift_serving_request_duration_seconds"),
        ("1 + topk(3, max_over_time(up[5m]))", "metric up"),
    ],
)
def test_the_check_finds_what_does_not_exist(expr: str, problem: str) -> None:
    assert problem in problems(expr)


def test_the_check_refuses_what_is_no_promql() -> None:
    with pytest.raises(ValueError, match="expected type"):
        problems("rate(clipdrift_model_labels_total)")
