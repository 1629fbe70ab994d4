"""What is old goes, in portions, and nothing that went is counted a second time.

Why not: an event is known by its id for as long as the id is kept. A record whose id was let go comes again only when the bus,
or one restored from it, is read anew; then it lies below an offset that was read before and is older than the ids that are
kept, and is taken as counted. A label that is handed in again comes as a new event: it is known by its receipt's bit, which
goes only when every prediction of its chunk is of a time whose rows are no longer taken.
"""

import shutil

import msgspec
import pytest
from dialogue import DAY, TODAY, Dialogue, day_of, labels, rows, run_end

from clipdrift_contract.events import LABELS, PREDICTIONS, Decision
from clipdrift_monitor.store.retention import Retention

KEEP = Retention(window_days=35, record_days=50, event_id_days=7, evidence_days=30)
FOR_EVER = Retention(window_days=0, record_days=0, event_id_days=0, evidence_days=0)
LAST_DAY = 70


def told_days(dialogue, first, last):
    for day in range(first, last + 1):
        dialogue.clock.advance_ms(max(0, day * DAY - dialogue.clock.now_ms()))  # records are of their day
        dialogue.go(*day_of(day, num_rows=30), ids=[f"p{day}", f"l{day}"])


def pruned(dialogue):
    """Turns until nothing more goes."""
    for _ in range(30):
        dialogue.clock.advance_ms(10 * 60_000)
        dialogue.turn()


@pytest.fixture(scope="module")
def many_days(tmp_path_factory):
    """Bus and store of a monitor that has seen seventy days and let nothing go."""
    folder = tmp_path_factory.mktemp("many")
    with Dialogue(folder, retention=FOR_EVER, now_ms=DAY, num_partitions=1) as dialogue:
        dialogue.go(run_end(), ids=["run"])
        told_days(dialogue, 2, LAST_DAY)
    return folder


@pytest.fixture
def aged(many_days, dialogue_of, tmp_path):
    """Makes dialogues that go on with the many days, and now let go of what is old."""

    def make(name):
        shutil.copytree(many_days, tmp_path / name)
        return dialogue_of(name, retention=KEEP, now_ms=(LAST_DAY + 1) * DAY, num_partitions=1)

    return make


@pytest.fixture
def old(aged):
    dialogue = aged("one")
    pruned(dialogue)
    return dialogue


def window_days(dialogue):
    return sorted({key.start_ms // DAY for key in dialogue.sums()})


def test_windows_receipts_blocks_signals_decisions_and_ids_go_by_their_age_and_the_audit_log_stays(old):
    kept_from = old.state.kept_from_ms // DAY
    starts = [msgspec.msgpack.decode(body)["start_ms"] // DAY for body in old.store.blocks("pump")]
    decisions = old.store.listed("decisions", "pump", 500, 0)

    assert window_days(old) == list(range(kept_from, LAST_DAY + 1))
    assert len(window_days(old)) == KEEP.window_days + 1  # thirty-five days back is within the oldest: it is kept whole
    assert old.store.seen_labels("pump", "e", 20 * 10_000 // 8_192) is None
    assert old.store.seen_labels("pump", "e", LAST_DAY * 10_000 // 8_192) is not None
    assert LAST_DAY - 50 <= min(starts) <= LAST_DAY - 48
    assert LAST_DAY - 51 <= min(one.at_ms for one in decisions) // DAY <= LAST_DAY - 46
    assert old.store.has_seen(["run", "p20", "l50", f"p{LAST_DAY}"]) == {f"p{LAST_DAY}"}
    num_audited = sum(action.startswith("decide") for action in old.audit_words())
    assert num_audited == len(old.published(Decision)) > len(decisions)
    assert old.store.verify_audit().is_intact
    assert old.store.run("pump", "v1") is not None


def test_a_bus_that_is_read_anew_after_pruning_counts_nothing_twice(old, dialogue_of, tmp_path):
    """The bus is lost and restored as it was ten days ago; its records are read from the first on."""
    before_sums, before = old.sums(), old.state
    old.restart()
    old.store.close()
    (tmp_path / "restored").mkdir()
    shutil.copy(tmp_path / "one" / "store.db", tmp_path / "restored" / "store.db")
    restored = dialogue_of("restored", retention=KEEP, now_ms=DAY, num_partitions=1)
    told = restored.clock
    restored.tell(run_end(), ids=["run"])
    for day in range(2, LAST_DAY - 9):
        told.advance_ms(max(0, day * DAY - told.now_ms()))
        restored.tell(*day_of(day, num_rows=30), ids=[f"p{day}", f"l{day}"])
    told.advance_ms(LAST_DAY * DAY - told.now_ms())
    restored.go()

    assert restored.sums() == before_sums
    assert (restored.state.num_labels, restored.state.num_predictions) == (before.num_labels, before.num_predictions)
    assert restored.counted(PREDICTIONS, "applied") == 0
    restored.go(*day_of(LAST_DAY + 1, num_rows=30))
    assert restored.state.num_labels == before.num_labels + 30


def test_a_receipt_that_is_redeemed_again_after_its_bit_went_is_not_counted(old):
    before, sums = old.state.num_labels, old.sums()
    columns = rows(20, 30)
    old.go(labels(columns, first=20 * 10_000, delay_ms=90 * DAY))

    assert old.state.num_labels == before
    assert old.sums() == sums
    assert old.counted(LABELS, "expired") == 1


def test_rows_of_a_time_that_is_kept_no_more_begin_no_window(old):
    days = window_days(old)
    old.go(*day_of(30, epoch="late"))
    assert window_days(old) == days
    assert old.counted(PREDICTIONS, "expired") == 1


def test_a_monitor_that_is_killed_between_portions_ends_with_the_same(aged, old):
    killed = aged("killed")
    for _ in range(4):
        killed.clock.advance_ms(10 * 60_000)
        killed.turn()
        killed.restart()
    pruned(killed)

    assert killed.sums() == old.sums()
    assert killed.state == old.state
    assert killed.store.blocks("pump") == old.store.blocks("pump")


def test_a_clock_that_jumps_and_an_event_of_the_future_let_nothing_go(dialogue_of):
    dialogue = dialogue_of(retention=KEEP)
    dialogue.go(run_end(), *day_of(TODAY - 3), *day_of(TODAY - 2))
    before = dialogue.sums()
    dialogue.clock.advance_ms(3_000 * DAY)
    dialogue.go(*day_of(TODAY + 2_999, epoch="future"))
    pruned(dialogue)

    assert dialogue.sums().items() >= before.items()
    assert dialogue.store.seen_labels("pump", "e", (TODAY - 3) * 10_000 // 8_192) is not None


def test_a_portion_is_small_and_only_taken_when_nothing_waits(aged):
    dialogue, portions = aged("one"), []
    let_go = dialogue.store.let_go
    dialogue.store.let_go = lambda floors, limit: portions.append(let_go(floors, limit)) or portions[-1]
    dialogue.tell(*day_of(LAST_DAY + 1))
    dialogue.turn()
    while_reading = list(portions)
    pruned(dialogue)

    assert while_reading == []
    assert portions[-1] == 0
    assert 0 < max(portions) <= 500
