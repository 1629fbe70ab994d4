"""The report of an ablation: every arm is in it, nothing is loaded, names are escaped, a browser shows it without an error."""

import re
from pathlib import Path

import msgspec
import pytest

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Arm, ClipSpec, Contrast
from clipdrift_deploy.ablation_report import plots, rows
from clipdrift_deploy.ablation_report.report import later_words, write_report
from clipdrift_trainer.ablation.grid import NormScale
from clipdrift_trainer.ablation.result import (
    AblationResult,
    ArmFigures,
    LaterCheck,
    Recommendation,
    SetFigures,
    SliceFigures,
)
from clipdrift_trainer.evaluation.paired import Paired

SPECS = {
    "present": ClipSpec(kind="global_norm", max_norm=0.05),
    "off": ClipSpec(kind="off"),
    "global norm 0.01": ClipSpec(kind="global_norm", max_norm=0.01),
    "global norm 1": ClipSpec(kind="global_norm", max_norm=1.0),
    "AutoClip, 10th percentile": ClipSpec(kind="autoclip"),
}


def figures(loss: float, *, is_value: bool = False) -> SetFigures:
    worst = SliceFigures(slice="J<F>K", num_rows=300, loss=loss + 0.01, accuracy=None if is_value else 0.7)
    metrics = ("brier",) if is_value else ("brier", "nll", "error", "ece")
    against = tuple(
        Contrast(
            slice=name, num_rows=300, num_blocks=9, metric=metric, difference=loss - 0.2, low=loss - 0.21, high=loss - 0.19
        )
        for name in ("", "J<F>K")
        for metric in metrics
    )
    return SetFigures(
        num_rows=300, num_days=9, loss=loss, accuracy=None if is_value else 0.75, nll=None if is_value else 0.5,
        ece=None if is_value else 0.02, worst_slice=worst, slices=(worst,), against_present=against, against_off=(),
    )  # fmt: skip


def make_result(*, is_value: bool = False, has_later: bool = False) -> AblationResult:
    losses = {"present": 0.2, "off": 0.19, "global norm 0.01": 0.9, "global norm 1": 0.191, "AutoClip, 10th percentile": 0.195}
    arms = []
    for name, spec in SPECS.items():
        found = figures(losses[name], is_value=is_value)
        if name == "present":
            found = msgspec.structs.replace(found, against_present=())
        gain = Paired(
            difference=losses[name] - 0.2, day_variance=1e-6, seed_variance=0.0, num_days=9, num_seeds=3, num_rows=300
        )
        arms.append(
            ArmFigures(
                arm=Arm(name=name, clip=spec, provenance="p"),
                status="done",
                seeds=(0, 1, 2),
                optimizer="SGD",
                learning_rate=0.01,
                multiple_of_median=spec.max_norm and spec.max_norm / 0.3,
                removed_mass_ratio=0.5,
                clip_rate_ratio=1.0,
                gain=None if name == "present" else gain,
                validation=found,
                later=found if has_later else None,
            )
        )
    lost = ArmFigures(arm=Arm(name="zclip", clip=ClipSpec(kind="zclip")), status="failed", reason="1 of 3 seeds raised; <oops>")
    regret = Contrast(slice="", num_rows=300, num_blocks=9, metric="brier", difference=0.001, low=-0.001, high=0.003)
    return AblationResult(
        model="pump", kind="regression" if is_value else "binary", metric="brier", margin=0.004, start_ms=0, end_ms=86_400_000,
        as_of_ms=86_400_000, later_from_ms=None, identity="i", num_train_rows=900, num_steps=100, seeds=(0, 1, 2),
        norms=NormScale(median=0.3, origin="off", own=None, num_tensors=2, num_parameters=9), arms=(*arms, lost),
        recommendation=Recommendation(
            verdict="use", arm="global norm 1", clip=SPECS["global norm 1"], headline="Use global norm 1.", reasons=("a & b",)
        ),
        later_check=LaterCheck(best="off", best_loss=0.19, recommended_loss=0.191, regret=regret) if has_later else None,
    )  # fmt: skip


def page_of(tmp_path: Path, result: AblationResult) -> str:
    write_report(tmp_path / "report.html", result)
    return (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("is_value", [False, True])
@pytest.mark.parametrize("has_later", [False, True])
def test_every_policy_has_a_row_and_every_figure_a_picture_with_its_table(
    tmp_path: Path, is_value: bool, has_later: bool
) -> None:
    page = page_of(tmp_path, make_result(is_value=is_value, has_later=has_later))

    assert page.count("<svg") == (4 if is_value else 7)
    assert page.count('<div class="card pair">') == page.count("<svg")
    for name in (
        "global norm 0.05 (present)",
        "global norm 0.01",
        "global norm 1",
        "AutoClip, 10th percentile",
        "no clipping",
        "zclip",
    ):
        assert name in page
    assert ("later months" in page) == has_later


def test_the_recommendation_is_the_title_and_its_reasons_are_escaped(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_result())

    assert "<h1>pump: another policy is better</h1>" in page
    assert "<li>a &amp; b</li>" in page
    assert "&lt;oops&gt;" in page
    assert "J&lt;F&gt;K" in page


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_result(has_later=True))

    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', page.replace("http://www.w3.org/1999/xlink", "")) == []
    assert "<script" not in page


def test_policies_stand_from_tight_to_loose_then_other_rules_then_no_clipping() -> None:
    names = [one.arm.name for one in rows.by_bound(make_result().arms)]
    assert names == ["global norm 0.01", "present", "global norm 1", "AutoClip, 10th percentile", "zclip", "off"]

    places = plots.places_of(make_result().arms)
    assert [places[name] for name in names] == sorted(places.values())
    assert places["global norm 1"] == 0.0


def test_the_differences_of_figures_that_are_better_when_higher_are_turned() -> None:
    accuracy = next(one for one in rows.figures_of(make_result()) if one.name == "accuracy")
    arm = make_result().arms[3]

    assert rows.contrast_words(accuracy.contrast(arm.validation), is_turned=True) == "+0.0090 ±0.0100"


def test_a_difference_of_one_day_has_no_interval() -> None:
    single = Contrast(slice="", num_rows=3, num_blocks=1, metric="brier", difference=0.1, low=-1e9, high=1e9)
    assert rows.contrast_words(single) == "+0.1000"


def test_the_later_months_are_told_with_their_regret() -> None:
    assert "a difference of +0.0010 [-0.0010, +0.0030]" in later_words(make_result(has_later=True))
    assert later_words(make_result()) == ""


def test_a_recommended_policy_that_did_not_stand_the_later_months_is_said_so() -> None:
    lost = msgspec.structs.replace(make_result(has_later=True), later_check=None, later_from_ms=1)
    assert "global norm 1 did not come to an end with every seed" in later_words(lost)


def test_a_report_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ClipdriftError, match="cannot be written"):
        write_report(tmp_path / "report.html", make_result())


@pytest.mark.browser
def test_a_browser_shows_it_without_an_error_and_without_scrolling_sideways(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    write_report(tmp_path / "report.html", make_result(has_later=True))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for width in (400, 1200):
            page, faults = browser.new_page(viewport={"width": width, "height": 800}), []
            page.on("pageerror", lambda error, faults=faults: faults.append(str(error)))
            page.on("requestfailed", lambda request, faults=faults: faults.append(request.url))
            page.goto(f"file://{tmp_path / 'report.html'}")
            assert page.locator("svg").count() == 7
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert faults == []
        browser.close()
