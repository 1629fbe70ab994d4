import hashlib
import sqlite3

import pytest

from clipdrift_monitor.store.audit import GENESIS, canonical, row_hash, verify
from clipdrift_monitor.store.store import AuditEntry, Changes, Store


@pytest.fixture
def chain(tmp_path):
    """A store with five audit rows, written in two batches, and its file."""
    store = Store(f"sqlite:///{tmp_path}/a.db")
    entries = [AuditEntry(at_ms=n, actor="monitor", action="decide", subject="m", body={"n": n}) for n in range(5)]
    store.commit(Changes(audit=entries[:2]))
    store.commit(Changes(audit=entries[2:]))
    yield store, tmp_path / "a.db"
    store.close()


def tamper(path, statement):
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_an_untouched_chain_holds_and_names_its_head(chain):
    store, _ = chain
    verdict = store.verify_audit()
    rows = list(store.audit())
    assert (verdict.is_intact, verdict.num_rows, verdict.broken_at) == (True, 5, None)
    assert verdict.head == rows[-1].hash
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0].previous == GENESIS


def test_a_rows_hash_is_sha256_over_fields_with_their_lengths():
    parts = ["1", "9", "a", "b", "c", "{}", GENESIS]
    expected = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part.encode() for part in parts)).hexdigest()
    assert row_hash(1, 9, "a", "b", "c", "{}", GENESIS) == expected


def test_fields_cannot_run_into_each_other():
    assert row_hash(1, 9, "ab", "c", "d", "{}", GENESIS) != row_hash(1, 9, "a", "bc", "d", "{}", GENESIS)


@pytest.mark.parametrize("column", ["at_ms", "actor", "action", "subject", "body", "hash"])
def test_a_changed_row_is_found_whatever_was_changed(chain, column):
    store, path = chain
    tamper(path, f"UPDATE audit SET {column} = '7' WHERE seq = 3")
    verdict = store.verify_audit()
    assert (verdict.is_intact, verdict.broken_at, verdict.reason) == (False, 3, "row 3 was changed")


def test_a_changed_row_with_a_hash_to_match_breaks_the_next(chain):
    store, path = chain
    row = list(store.audit())[2]
    forged = row_hash(3, row.at_ms, "somebody else", row.action, row.subject, row.body, row.previous)
    tamper(path, f"UPDATE audit SET actor = 'somebody else', hash = '{forged}' WHERE seq = 3")
    assert store.verify_audit().reason == "row 4 does not follow row 3"


@pytest.mark.parametrize("seq", [1, 3, 4])
def test_a_deleted_row_is_found(chain, seq):
    store, path = chain
    tamper(path, f"DELETE FROM audit WHERE seq = {seq}")
    verdict = store.verify_audit()
    assert (verdict.broken_at, verdict.reason) == (seq, f"row {seq} is missing")


def test_rows_cut_off_at_the_end_show_in_the_head_alone(chain):
    """What a chain cannot tell by itself: keep the head somewhere else."""
    store, path = chain
    head = store.verify_audit().head
    tamper(path, "DELETE FROM audit WHERE seq = 5")
    verdict = store.verify_audit()
    assert verdict.is_intact
    assert verdict.head != head


def test_rows_that_changed_places_are_found(chain):
    store, path = chain
    for old, new in ((2, 99), (3, 2), (99, 3)):
        tamper(path, f"UPDATE audit SET seq = {new} WHERE seq = {old}")
    assert store.verify_audit().broken_at == 2


def test_no_rows_are_a_chain():
    assert verify([]).head == GENESIS


def test_the_same_body_is_the_same_text():
    assert canonical({"b": 1, "a": {"d": 2, "c": 3}}) == canonical({"a": {"c": 3, "d": 2}, "b": 1})
