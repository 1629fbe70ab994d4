"""The summary on a CI's page: what decided is on it, and nothing in it is markup that data brought."""

import math

import pytest

from clipdrift_contract.events import Arm, ArmResult, ClipSpec, Contrast, GateCheck, RetrainOutcome, RetrainRequest
from clipdrift_deploy.ci_job.report import write_report
from clipdrift_deploy.ci_job.summary import interval_plot, summary

ARM = Arm(name="same", clip=ClipSpec())
REQUEST = RetrainRequest(
    key="k1", model="pump", cause="drift", decision_id="d1", requested_at_ms=0, as_of_ms=10, data_start_ms=0,
    champion_version="v1", champion_uri="", champion_digest="", champion_clip=ClipSpec(), generation=1, arms=(ARM,),
)  # fmt: skip


def contrast(slice_name="", low=-0.2, difference=-0.1, high=0.0):
    return Contrast(
        slice=slice_name, num_rows=1000, num_blocks=9, metric="brier", difference=difference, low=low, high=high
    )  # fmt: skip


def outcome(*contrasts, checks=(), reasons=("because",), verdict="fail"):
    result = ArmResult(
        arm=ARM, run_id="", version="v2", artifact_uri="", artifact_digest="", removed_mass_ratio=0.25, validation=(),
        against_champion=contrasts,
    )  # fmt: skip
    return RetrainOutcome(
        key="k1", model="pump", finished_at_ms=1, verdict=verdict, reasons=reasons, arms=(result,), winner="same", checks=checks
    )


def test_verdict_checks_slices_and_arms_are_on_the_page():
    check = GateCheck(name="slice", slice="site=north", outcome="fail", words="worse", value=0.1, bound=0.05, num_rows=90)
    text = summary(REQUEST, outcome(contrast(), contrast("site=north"), checks=(check,)))
    for words in ("❌ fail", "site=north", "≤ 0.05", "all rows", "-0.1000 (1,000 rows)", "25.0%", "**won**"):
        assert words in text


def test_what_data_bring_is_text_and_no_markup():
    evil = "<img src=x> [link](http://x) | `code` ![p](http://y)"
    text = summary(REQUEST, outcome(contrast(f"site={evil}"), reasons=(evil,)))
    outside = "".join(text.split("```")[0::2])
    assert not any(sign in outside.replace("`k1`", "") for sign in ("<img", "[link]", "![", "`code`"))
    assert text.count("```") == 2  # a slice's name does not end the plot


@pytest.mark.parametrize("low", [math.nan, math.inf])
def test_a_figure_that_is_none_gives_an_empty_plot(low):
    assert not interval_plot(low, 0.0, 1.0, 1.0).strip()


def test_a_plot_puts_zero_in_the_middle_and_the_value_on_its_side():
    drawn = interval_plot(0.5, 0.75, 1.0, 1.0)
    assert (drawn.index("|"), drawn.index("●"), len(drawn)) == (20, 35, 41)


def test_githubs_page_gets_the_summary_behind_what_is_there_and_none_that_is_too_long(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("before\n")
    write_report(tmp_path / "report", REQUEST, outcome(contrast()), None, str(page))
    assert page.read_text().startswith("before\n## Retrain of pump")
    monkeypatch.setattr("clipdrift_deploy.ci_job.report._MAX_SUMMARY_BYTES", 10)
    write_report(tmp_path / "report", REQUEST, outcome(contrast()), None, str(page))
    assert page.read_text().endswith("too long for this page: see summary.md.\n")


def test_a_report_that_cannot_be_written_changes_nothing(tmp_path):
    (tmp_path / "report").write_text("a file")
    write_report(tmp_path / "report", REQUEST, outcome(), None, "")
