"""The numbers of the report."""

import msgspec
import pytest
from made_runs import FAULT, rich_end, rich_windows, window

from clipdrift_contract.events import Fault, SliceGradient
from clipdrift_deploy.clip_report.figures import (
    MOST_STRETCHES,
    course_of,
    course_of_end,
    faults_of,
    removed_by,
    slice_shares,
)


def test_sums_are_those_of_all_windows() -> None:
    course = course_of([window(0, 4.0), window(50, 2.0), window(100, 0.5)])
    assert (course.num_steps, course.num_clipped, course.num_checked) == (150, 100, 15)
    assert course.removed_mass_ratio == pytest.approx((3 + 1) / (4 + 2 + 0.5))
    assert course.clip_rate_ratio == pytest.approx(2 / 3)
    assert course.norm_max == 4.0


def test_what_another_bound_would_remove_is_that_of_the_norms() -> None:
    course = course_of([window(0, 2.0**2.125), window(50, 2.0**0.125)])
    assert removed_by(2.0, course.histogram) == pytest.approx((2**2.125 - 2) / (2**2.125 + 2**0.125))
    assert removed_by(2.0, {}) is None


def test_a_long_run_is_shown_in_few_stretches_that_hold_all_of_it() -> None:
    course = course_of([window(50 * i, 1.0 + i % 7) for i in range(1_000)])
    assert len(course.stretches) == MOST_STRETCHES
    assert sum(stretch.num_steps for stretch in course.stretches) == 50_000
    assert max(stretch.norm_max for stretch in course.stretches) == 7.0


def test_a_stretch_without_a_finite_step_has_no_figures_and_costs_the_others_nothing() -> None:
    empty = window(50, num_nonfinite=50, norm_sum=0.0, norm_removed_sum=0.0, loss_sum=0.0, norm_histogram={}, num_clipped=0)
    course = course_of([window(0, 2.0), empty])
    assert (course.stretches[1].norm_p50, course.stretches[1].loss, course.stretches[1].removed_mass_ratio) == (
        None,
        None,
        None,
    )
    assert course.removed_mass_ratio == pytest.approx(0.5)


def test_faults_of_one_kind_and_layer_are_one() -> None:
    other = Fault(kind="frozen_layer", step=0, num_steps=50, layer="a")
    later = msgspec.structs.replace(FAULT, step=50)
    assert faults_of([FAULT, other, later]) == (msgspec.structs.replace(FAULT, num_steps=100), other)


def test_shares_of_slices_sum_to_one_and_empty_slices_are_left_out() -> None:
    gradients = [
        SliceGradient(slice="a", num_samples=30, grad_mass_sum=1.0, loss_sum=0.0),
        SliceGradient(slice="b", num_samples=70, grad_mass_sum=3.0, loss_sum=0.0),
        SliceGradient(slice="(other)", num_samples=0, grad_mass_sum=0.0, loss_sum=0.0),
    ]
    shares = slice_shares(gradients)
    assert [(one.name, one.share_of_samples, one.share_of_mass) for one in shares] == [("b", 0.7, 0.75), ("a", 0.3, 0.25)]


def test_the_end_of_a_run_alone_gives_its_sums() -> None:
    course = course_of_end(rich_end())
    assert (course.removed_mass_ratio, course.num_clipped, course.norm_p50, course.stretches) == (0.5, 1_500, 1.5, ())


def test_windows_and_end_agree_on_a_run_of_one_norm() -> None:
    windows = [window(50 * i, 4.0) for i in range(4)]
    assert course_of(windows).removed_mass_ratio == pytest.approx(0.75)
    assert len(course_of(rich_windows()).stretches) == 30
