"""The pack's own pictures."""

import re

from clipdrift_monitor.evidence.plots import Course, Shape, of_course, of_shape

DAY = 86_400_000
COURSE = Course(
    start_ms=(0, DAY, 2 * DAY), evidence=(0.1, None, 1.2), accuracy=(0.9, 0.8, None), accuracy_low=(0.85, 0.7, None),
    accuracy_high=(0.95, 0.9, None),
)  # fmt: skip


def test_the_course_shows_evidence_with_its_limit_and_accuracy_with_its_interval():
    evidence, accuracy = of_course(COURSE)
    assert evidence.count("<polyline") == 1
    assert ">alarm<" in evidence
    assert 'class="band b"' in accuracy


def test_nothing_is_drawn_of_nothing():
    assert of_course(Course()) == ("", "")
    assert of_shape(Shape(column="x", bins=(), before=(), now=())) == ""


def test_the_largest_share_is_the_tallest_bar_and_an_absent_bin_has_none():
    svg = of_shape(Shape(column="site", bins=("north", "south"), before=(0.5, 0.5), now=(1.0, 0.0)))
    heights = [float(one) for one in re.findall(r'height="([0-9.]+)"/>', svg)]
    assert heights == [47.0, 47.0, 94.0, 0.0]


def test_words_of_a_client_open_no_element():
    svg = of_shape(Shape(column="<script>", bins=("</svg><b>",), before=(1.0,), now=(1.0,)))
    assert "<script" not in svg
    assert "<b>" not in svg
