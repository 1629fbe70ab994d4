"""Windows rebuilt from the bus are those that were there, and nothing else changes."""

import msgspec
import numpy as np
import pytest
from dialogue import DAY, Dialogue, labels, predictions, rows, run_end

from clipdrift_contract.errors import RetryableError
from clipdrift_monitor.engine.backfill import BackfillError, backfill
from clipdrift_monitor.store.lease import Lease
from clipdrift_monitor.store.store import Changes, Store

SPAN = {"start_ms": 2 * DAY, "end_ms": 7 * DAY}


@pytest.fixture
def dialogue(tmp_path):
    """A monitor that saw days with duplicates, late labels, poison, two replicas and another version; stopped by now."""
    with Dialogue(tmp_path) as one:
        one.go(run_end(), run_end("v2"))
        for day in range(2, 7):
            columns = rows(day)
            made, known = predictions(columns, first=day * 1_000), labels(columns, first=day * 1_000)
            one.go(made, known, made, ids=[f"p{day}", f"l{day}", f"p{day}"])
            one.go(known, predictions(rows(day, seed=1), epoch="other"), labels(rows(day, seed=1), epoch="other", version="v2"))
        one.go(msgspec.structs.replace(predictions(rows(3)), slice_index=labels(rows(4, 5)).slice_index))
        one.go(predictions(rows(4), version="never-told"))
        one._session.close()
        yield one


def replay(dialogue, **changed):
    given = {**SPAN, "window_ms": DAY, "clock": dialogue.clock, "wait": lambda s: dialogue.clock.advance_ms(int(s * 1_000))}
    return backfill(dialogue.bus, dialogue.store, "pump", **{**given, **changed})


def spoil(dialogue):
    """Some windows are lost, some hold nonsense."""
    windows = list(dialogue.store.windows("pump", SPAN["start_ms"], SPAN["end_ms"]))
    dialogue.store.commit(Changes(windows={("pump", key): np.zeros(len(sums)) for key, sums in windows[::2]}))
    return len(windows), len(windows[::2])


def everything_else(dialogue):
    store = dialogue.store
    listed = [store.listed(kind, "pump", 100, 0) for kind in ("decisions", "signals", "deployments")]
    return store.blocks("pump"), store.harm("pump"), store.models(), store.offsets(), listed, store.num_outbox()


def test_rebuilt_windows_are_the_original_ones_and_nothing_is_judged_twice(dialogue):
    original, rest = dialogue.sums(), everything_else(dialogue)
    num_windows, num_spoilt = spoil(dialogue)
    assert dialogue.sums() != original

    found = replay(dialogue)

    rebuilt = dialogue.sums()
    assert rebuilt.keys() == original.keys()
    for key, sums in original.items():
        np.testing.assert_allclose(rebuilt[key], sums, rtol=1e-12)
    assert (found.num_windows, found.num_poison, found.num_without_run) == (num_windows, 1, 1)
    assert num_spoilt <= found.num_changed <= num_windows
    assert everything_else(dialogue) == rest


def test_a_second_time_changes_nothing(dialogue):
    replay(dialogue)
    before = dialogue.sums()
    assert replay(dialogue).num_changed == 0
    assert dialogue.sums() == before


def test_only_the_windows_of_the_span_are_touched(dialogue):
    spoil(dialogue)
    before = dialogue.sums()
    replay(dialogue, start_ms=3 * DAY, end_ms=5 * DAY)
    changed = {key.start_ms // DAY for key, sums in dialogue.sums().items() if sums != before[key]}
    assert changed == {3, 4}


def test_what_the_monitor_has_not_read_is_left_to_it_and_counted_once(dialogue):
    columns = rows(6, 50, seed=9)
    dialogue.tell(predictions(columns, epoch="new"), labels(columns, epoch="new"))
    spoil(dialogue)
    replay(dialogue)
    before = dialogue.sums()

    dialogue.new_life()
    dialogue.clock.advance_ms(60_000)
    dialogue.go()

    def total(sums, place):
        return sum(one[place] for one in sums.values())

    assert total(dialogue.sums(), 0) == total(before, 0) + 50
    assert total(dialogue.sums(), 1) == total(before, 1) + 50


def test_a_bus_that_holds_less_than_the_store_is_refused_unless_forced(dialogue):
    windows = list(dialogue.store.windows("pump", SPAN["start_ms"], SPAN["end_ms"]))
    dialogue.store.commit(Changes(windows={("pump", key): sums * 2 for key, sums in windows[:1]}))
    before = dialogue.sums()
    with pytest.raises(BackfillError, match="fewer rows than the store of 1 windows"):
        replay(dialogue)
    assert dialogue.sums() == before
    assert replay(dialogue, is_forced=True).num_changed >= 1


def test_while_a_monitor_lives_nothing_is_rebuilt(dialogue, tmp_path):
    other = Lease(Store(f"sqlite:///{tmp_path / 'store.db'}"), "a monitor", dialogue.clock)
    assert other.take()

    def wait(seconds):
        dialogue.clock.advance_ms(int(seconds * 1_000))
        other.beat()

    with pytest.raises(RetryableError, match="stop it first"):
        replay(dialogue, wait=wait)


def test_a_span_must_be_whole_windows(dialogue):
    with pytest.raises(ValueError, match="whole windows"):
        replay(dialogue, start_ms=2 * DAY + 1)
    with pytest.raises(ValueError, match="whole windows"):
        replay(dialogue, end_ms=2 * DAY)
