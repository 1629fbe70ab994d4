"""Sums kept in hours: days are judged as ever, old hours become days, and a late label counts once wherever its hour went."""

import msgspec
import pytest
from dialogue import DAY, Dialogue, labels, predictions, rows, run_end

from clipdrift_contract.clock import MS_PER_HOUR
from clipdrift_monitor.engine.backfill import backfill
from clipdrift_monitor.state import JudgedBlock
from clipdrift_monitor.windows.span import in_span, merged


@pytest.fixture
def in_days(tmp_path):
    (tmp_path / "days").mkdir()
    with Dialogue(tmp_path / "days") as one:
        yield one


@pytest.fixture
def in_hours(tmp_path):
    (tmp_path / "hours").mkdir()
    with Dialogue(tmp_path / "hours", part_ms=MS_PER_HOUR, part_days=3) as one:
        yield one


def live(*dialogues, days=range(2, 9)):
    for dialogue in dialogues:
        dialogue.go(run_end())
        for day in days:
            columns = rows(day)
            early = {name: values[:-1] for name, values in columns.items()}
            dialogue.go(predictions(columns, first=day * 1_000), labels(early, first=day * 1_000))


def windows_of(dialogue):
    return dict(dialogue.store.windows("pump", 0, 10_000 * DAY))


def totals(windows):
    return {key: sums.round(9).tolist() for key, sums in merged(windows.items(), width_ms=DAY).items()}


def judged(dialogue):
    blocks = [msgspec.msgpack.decode(body, type=JudgedBlock) for body in dialogue.store.blocks("pump")]
    counts = [(one.start_ms, one.view.num_labels, one.view.num_correct, one.alarms) for one in blocks]
    return counts, [{test: round(level, 9) for test, level in one.levels.items()} for one in blocks]  # but for rounding


def decided(dialogue):
    return [(one.decision_id, one.action) for one in dialogue.store.listed("decisions", "pump", 50, 0)]


def idle(dialogue):
    dialogue.clock.advance_ms(4_000_000)
    dialogue.turn(3)
    dialogue.clock.advance_ms(4_000_000)
    dialogue.turn(3)


def test_days_are_judged_as_without_parts_and_old_hours_are_merged_into_them(in_days, in_hours):
    live(in_days, in_hours)
    starts_before = {key.start_ms for key in windows_of(in_hours)}
    idle(in_hours)

    found = windows_of(in_hours)
    watermark_day = in_hours.state.watermark_ms // DAY
    assert any(start_ms % DAY for start_ms in starts_before)
    assert all(key.start_ms % DAY == 0 for key in found if key.start_ms < (watermark_day - 3) * DAY)
    assert any(key.start_ms % DAY for key in found if key.start_ms >= (watermark_day - 3) * DAY)
    assert totals(found) == totals(windows_of(in_days))
    assert judged(in_hours) == judged(in_days)
    assert decided(in_hours) == decided(in_days)


def test_a_late_label_counts_once_before_and_after_its_hour_was_merged(in_days, in_hours):
    live(in_days, in_hours)
    idle(in_hours)
    for dialogue in (in_days, in_hours):
        for day in (2, 8):
            last = {name: values[-1:] for name, values in rows(day).items()}
            dialogue.go(labels(last, first=day * 1_000 + 199))
    idle(in_hours)

    assert totals(windows_of(in_hours)) == totals(windows_of(in_days))
    assert all(key.start_ms % DAY == 0 for key in windows_of(in_hours) if key.start_ms < 4 * DAY)


def test_hours_can_be_viewed_by_any_span(in_hours):
    live(in_hours)
    start_ms, end_ms = 8 * DAY + 5 * MS_PER_HOUR, 8 * DAY + 13 * MS_PER_HOUR
    found = in_span(windows_of(in_hours).items(), "v1", start_ms, end_ms)
    time_N = rows(8)["time_ms"]
    assert sum(sums[0] for sums in found.values()) == ((time_N >= start_ms) & (time_N < end_ms)).sum()


def test_hours_are_rebuilt_from_the_bus_also_where_they_were_merged(in_hours):
    live(in_hours)
    idle(in_hours)
    before = totals(windows_of(in_hours))
    in_hours._session.close()
    backfill(
        in_hours.bus, in_hours.store, "pump", start_ms=2 * DAY, end_ms=9 * DAY, window_ms=DAY, part_ms=MS_PER_HOUR,
        clock=in_hours.clock, wait=lambda s: in_hours.clock.advance_ms(int(s * 1_000)),
    )  # fmt: skip
    assert totals(windows_of(in_hours)) == before
