"""What is ordered, and where it lies."""

from pathlib import Path

import pytest

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Signal
from clipdrift_monitor.evidence.order import order_for, paths_of

DAY = MS_PER_DAY


def _signal(start_day: int) -> Signal:
    return Signal(
        signal_id="pump-v1-repairable-1", model="pump", version="v1", kind="repairable", severity="page", detector="repairable",
        window_start_ms=start_day * DAY, window_end_ms=(start_day + 1) * DAY, statistic=2.0, threshold=1.0, summary="It pays.",
    )  # fmt: skip


def test_the_reference_is_the_versions_first_fourteen_days_in_service() -> None:
    order = order_for(_signal(60), run=None, bus_url="sqlite:///bus.db", in_service_since_ms=30 * DAY)

    assert (order.reference_start_ms, order.reference_end_ms) == (30 * DAY, 44 * DAY)
    assert (order.current_start_ms, order.current_end_ms) == (60 * DAY, 61 * DAY)
    assert (order.title, order.why) == ("Repairable harm: pump v1", "It pays.")


@pytest.mark.parametrize(("alarm_day", "reference_days"), [(35, 5), (30, 0), (29, 0)])
def test_the_reference_ends_where_the_alarms_window_begins(alarm_day: int, reference_days: int) -> None:
    order = order_for(_signal(alarm_day), run=None, bus_url="sqlite:///bus.db", in_service_since_ms=30 * DAY)

    assert order.reference_end_ms - order.reference_start_ms == reference_days * DAY
    assert order.reference_end_ms <= order.current_start_ms


@pytest.mark.parametrize(("alarm_day", "first_day"), [(60, 54), (33, 30), (30, 30)])
def test_a_short_window_is_lengthened_into_the_past_but_not_beyond_the_start_of_service(alarm_day: int, first_day: int) -> None:
    order = order_for(
        _signal(alarm_day), run=None, bus_url="sqlite:///bus.db", in_service_since_ms=30 * DAY, at_least_ms=7 * DAY
    )

    assert (order.current_start_ms, order.current_end_ms) == (first_day * DAY, (alarm_day + 1) * DAY)
    assert order.reference_end_ms == min(44, first_day) * DAY


@pytest.mark.parametrize("signal_id", ["flights-sgd-v1-sudden_break-1357084800000", "pump-1.0.2-mix_drift-0"])
def test_a_plain_signal_id_is_the_files_name(signal_id: str) -> None:
    assert paths_of(Path("e"), signal_id).html == Path("e") / f"{signal_id}.html"


@pytest.mark.parametrize(
    "signal_id", ["../../etc/passwd", "/etc/passwd", "..", "", "a/b", "a\\b", "a\0b", ".hidden", "ü" * 300]
)
def test_no_signal_id_leads_out_of_the_folder(tmp_path: Path, signal_id: str) -> None:
    for path in paths_of(tmp_path, signal_id):
        assert path.resolve().parent == tmp_path.resolve()
        assert len(path.name) <= 130
        path.touch()


def test_ids_that_differ_in_unsafe_characters_only_do_not_meet() -> None:
    assert len({paths_of(Path("e"), signal_id).html for signal_id in ("a/b", "a\\b", "a b", "a_b")}) == 4
