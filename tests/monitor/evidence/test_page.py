"""The words around the report."""

from collections.abc import Callable

import numpy as np
import pytest

from clipdrift_monitor.evidence.order import EvidenceOrder
from clipdrift_monitor.evidence.page import Moved, too_few, with_heading
from clipdrift_monitor.evidence.rows import Found, Side

MakeOrder = Callable[..., EvidenceOrder]
EMPTY = Side(0, {}, {})
FULL = Side(4321, {}, {"predicted": np.zeros(100), "label": np.full(100, np.nan)})


def test_too_few_rows_are_said_with_their_number_and_their_window(make_order: MakeOrder) -> None:
    page = too_few(make_order(), Found(Side(1, {}, {"predicted": np.zeros(1), "label": np.zeros(1)}), EMPTY))

    assert "The reference window has 1 recorded row; at least 30 are needed." in page
    assert "The alarm&#x27;s window has 0 recorded rows; at least 30 are needed." in page


def test_a_window_that_has_enough_rows_is_not_called_short(make_order: MakeOrder) -> None:
    assert "The reference window has" not in too_few(make_order(), Found(FULL, EMPTY))


def test_an_empty_reference_says_why(make_order: MakeOrder) -> None:
    order = make_order(title="x")

    assert "none: the alarm came with" not in too_few(order, Found(EMPTY, FULL))
    assert "none: the alarm came with" in too_few(
        EvidenceOrder(
            signal_id="a", model="m", version="v", bus_url="", reference_start_ms=5, reference_end_ms=5, current_start_ms=5,
            current_end_ms=9,
        ),
        Found(EMPTY, FULL),
    )  # fmt: skip


def test_words_of_others_are_escaped_wherever_they_stand(make_order: MakeOrder) -> None:
    evil = "<img src=x onerror=alert(1)>"
    order = make_order(title=evil, why=evil, slice=evil)
    moved = [Moved(evil, evil, 1.0, 0.1, True, evil, evil)]
    report = "<html><head></head><body></body></html>"

    for page in (too_few(order, Found(EMPTY, EMPTY)), with_heading(report, order, Found(FULL, FULL), moved, evil)):
        assert "<img" not in page
        assert "&lt;img" in page


def test_the_heading_goes_before_the_body_that_is_shown_not_into_a_script(make_order: MakeOrder) -> None:
    report = "<html><head><script>var x = '<body> </head> <head>';</script></head><body><div id=root></div></body></html>"

    page = with_heading(report, make_order(title="Told"), Found(FULL, FULL), [], "")

    assert page.index("Content-Security-Policy") < page.index("<script>")
    assert page.index("</script>") < page.index("<h1>Told</h1>") < page.index("<div id=root>")
    assert page.count("<h1>") == 1


def test_a_report_that_is_no_page_is_refused(make_order: MakeOrder) -> None:
    with pytest.raises(ValueError, match="no HTML page"):
        with_heading("{}", make_order(), Found(FULL, FULL), [], "")
