"""A label that comes with the caller's own request id finds the receipts of that request, or is told why not."""

import multiprocessing
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from toy_service import KEY

from clipdrift_contract.clock import ManualClock, SystemClock
from clipdrift_contract.errors import ConfigError
from clipdrift_serving.dataplane.receipts import ReceiptBook, ReceiptError
from clipdrift_serving.recording.recorder import Predicted
from clipdrift_serving.recording.requests import RequestBook, RequestBookConfig

EPOCH = "0123456789abcdef"
RECEIPTS = ReceiptBook([KEY], EPOCH)


def _predicted(first, request_ids, num_classes=2, model="toy", version="v1", receipts=RECEIPTS):
    """Rows for these requests, and the tokens that were given for them."""
    rows = np.arange(first, first + sum(num_rows for _, num_rows in request_ids))
    rng = np.random.default_rng(first)
    values = rng.normal(size=(len(rows), 1)) if num_classes == 1 else rng.dirichlet(np.ones(num_classes), size=len(rows))
    scores = values.astype("f4")
    predicted = scores.argmax(1).astype("f8") if num_classes > 1 else scores[:, 0].astype("f8")
    named = model, version, "champion", 3, rows.astype("u8"), rows + 1000, (rows % 2).astype("i2"), predicted
    tokens = receipts.issue(*named, scores if num_classes > 1 else scores[:, :0])
    return Predicted(*named, scores, {}, request_ids), tokens


@pytest.fixture
def books(tmp_path):
    made = []

    def make(folder=tmp_path, clock=None, receipts=RECEIPTS, **config):
        made.append(RequestBook(folder, receipts, clock or ManualClock(10**6), RequestBookConfig(**config)))
        return made[-1]

    yield make
    for book in made:
        book.close()


def _reasons(found):
    return [one.reason if isinstance(one, ReceiptError) else "found" for one in found]


@pytest.mark.parametrize("num_classes", [1, 2, 16, 40])
@pytest.mark.parametrize("where", ["memory", "file", "next life"])
def test_each_row_of_a_request_is_found_with_the_receipt_that_was_given_for_it(books, num_classes, where):
    book = books()
    requests = [("a", 1), ("", 2), ("b", 5), ("c", 1)]
    predicted, tokens = _predicted(0, requests, num_classes)
    book.remember(predicted)
    if where != "memory":
        assert book.drain(10)
    if where == "next life":
        book.close()
        book = books()
    asked = [("b", 4), ("a", 0), ("c", 0), ("b", 0), ("b", 0)]
    assert book.find("toy", asked) == [tokens[place] for place in (7, 0, 8, 3, 3)]


def test_what_cannot_be_told_says_why_and_leaves_the_others_alone(books):
    book = books()
    for first in (0, 10):
        book.remember(_predicted(first, [("twice", 1)])[0])
    predicted, tokens = _predicted(20, [("once", 2)])
    book.remember(predicted)
    for _ in range(2):  # from memory, then from the file
        found = book.find("toy", [("twice", 0), ("once", 1), ("never", 0), ("once", 2), ("once", -1)])
        assert _reasons(found) == ["ambiguous_request", "found", "unknown_request", "bad_value", "bad_value"]
        assert found[1] == tokens[1]
        assert book.drain(10)


def test_an_id_is_one_models_own(books):
    book = books()
    first, first_tokens = _predicted(0, [("id", 1)], model="toy")
    second, second_tokens = _predicted(5, [("id", 1)], model="toy.head")
    for predicted in (first, second):
        book.remember(predicted)
    assert book.find("toy", [("id", 0)]) == first_tokens
    assert book.find("toy.head", [("id", 0)]) == second_tokens
    assert _reasons(book.find("other", [("id", 0)])) == ["unknown_request"]


def test_one_look_up_finds_thousands_of_several_versions(books):
    book = books()
    tokens = []
    for first in range(0, 5000, 50):
        predicted, given = _predicted(first, [(f"r{n}", 1) for n in range(first, first + 50)], version=f"v{first % 3}")
        book.remember(predicted)
        tokens += given
    assert book.drain(20)
    assert book.find("toy", [(f"r{n}", 0) for n in range(5000)]) == tokens


def test_beyond_their_number_the_oldest_go_and_are_counted(books):
    book = books(max_requests=100)
    for first in range(0, 250, 10):
        book.remember(_predicted(first, [(str(n), 1) for n in range(first, first + 10)])[0])
        assert book.drain(10)
    reasons = _reasons(book.find("toy", [(str(n), 0) for n in range(250)]))
    assert reasons == ["unknown_request"] * 150 + ["found"] * 100
    figures = book.figures()
    assert (figures.num_open, figures.num_evicted, figures.num_expired, figures.num_dropped) == (100, 150, 0, 0)


def test_beyond_their_age_they_go_and_are_counted(books):
    clock = ManualClock(10**6)
    book = books(clock=clock, max_age_seconds=60)
    for number in range(3):
        book.remember(_predicted(number, [(str(number), 1)])[0])
        assert book.drain(10)
        clock.advance_ms(40_000)
    assert _reasons(book.find("toy", [("0", 0), ("1", 0), ("2", 0)])) == ["unknown_request", "found", "found"]
    assert (book.figures().num_expired, book.figures().num_open) == (1, 2)


def test_with_another_key_older_requests_are_signed_with_the_newest(books, tmp_path):
    book = books()
    predicted, _ = _predicted(0, [("a", 1)])
    book.remember(predicted)
    book.close()
    newest = ReceiptBook(["22" * 32], "ff" * 8)
    (token,) = books(receipts=newest).find("toy", [("a", 0)])
    receipt = newest.verify(token)
    assert (receipt.epoch, receipt.sequence, receipt.version) == (EPOCH, 0, "v1")


def test_ids_are_on_disk_as_hashes_only_and_only_for_their_owner(books, tmp_path):
    book = books()
    book.remember(_predicted(0, [("ann@example.org", 1)])[0])
    book.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"ann@example" not in content
    assert b"toy" in content
    assert (tmp_path / "requests.db").stat().st_mode & 0o077 == 0


def test_while_the_file_is_locked_they_wait_and_are_found(books, tmp_path):
    book = books()
    other = sqlite3.connect(tmp_path / "requests.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    predicted, tokens = _predicted(0, [("a", 1)])
    book.remember(predicted)
    assert book.find("toy", [("a", 0)]) == tokens
    assert not book.drain(0.05)
    other.execute("ROLLBACK")
    other.close()
    assert book.drain(20)
    assert (book.figures().num_open, book.figures().num_waiting) == (1, 0)


def test_a_damaged_file_is_put_aside_and_a_new_one_begun(books, tmp_path, caplog):
    (tmp_path / "requests.db").write_bytes(b"\xff" * 5000)
    book = books()
    predicted, tokens = _predicted(0, [("a", 1)])
    book.remember(predicted)
    assert book.drain(10)
    assert book.find("toy", [("a", 0)]) == tokens
    assert (tmp_path / "requests.damaged").stat().st_size == 5000
    assert "is damaged" in caplog.text


def test_a_folder_that_cannot_be_made_is_a_fault_of_the_settings(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="request ids need a file"):
        RequestBook(tmp_path / "file", RECEIPTS, ManualClock(), RequestBookConfig())


def test_rows_that_cannot_be_packed_do_not_end_the_keeping_of_others(books, caplog):
    book = books()
    bad, _ = _predicted(0, [("bad", 1)])
    book.remember(bad._replace(model="m" * 300))
    good, tokens = _predicted(5, [("good", 1)])
    book.remember(good)
    assert book.find("toy", [("good", 0)]) == tokens
    assert book.figures().num_dropped == 1


@pytest.mark.parametrize(("name", "value"), [("max_requests", -1), ("max_age_seconds", 0)])
def test_bounds_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        RequestBookConfig(**{name: value})


def test_requests_without_an_id_cost_no_memory_and_none_is_held_where_none_is_wanted(books, tmp_path):
    book, off = books(), books(folder=tmp_path / "off", max_requests=0)
    for first in range(3000):
        book.remember(_predicted(first, [("", 1)])[0])
        off.remember(_predicted(first, [("a", 1)])[0])
    assert (book._held, off._held) == ([], [])
    assert off.drain(10)
    assert _reasons(off.find("toy", [("a", 0)])) == ["unknown_request"]


def test_what_nobody_flushes_is_flushed_before_it_fills_the_memory(books):
    book = books()
    for first in range(3000):
        book.remember(_predicted(first, [(str(first), 1)])[0])
        assert len(book._held) < 1024
    assert _reasons(book.find("toy", [(str(n), 0) for n in range(3000)])) == ["found"] * 3000


def _work(folder, epoch):
    receipts = ReceiptBook([KEY], epoch)
    book = RequestBook(Path(folder), receipts, SystemClock(), RequestBookConfig())
    for first in range(0, 400, 4):
        book.remember(_predicted(first, [(f"{epoch}-{first}", 4)], receipts=receipts)[0])
        book.flush()
    assert book.drain(30)
    os._exit(0)  # a crash: what was written stays


def test_processes_of_one_host_share_the_file_and_a_crash_loses_nothing_written(books, tmp_path):
    epochs = [f"{n:016x}" for n in range(3)]
    spawn = multiprocessing.get_context("fork")
    processes = [spawn.Process(target=_work, args=(str(tmp_path), epoch)) for epoch in epochs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = books().find(
        "toy", [(f"{epoch}-{first}", row) for epoch in epochs for first in range(0, 400, 4) for row in range(4)]
    )
    told = [(RECEIPTS.verify(token).epoch, RECEIPTS.verify(token).sequence) for token in found]
    assert told == [(epoch, n) for epoch in epochs for n in range(400)]


@pytest.mark.parametrize("where", ["memory", "file"])
def test_what_was_answered_is_told_whole_and_each_answer_by_itself(books, where):
    book = books()
    for first in (0, 10):
        book.remember(_predicted(first, [("twice", 2), ("other", 1)])[0])
    if where == "file":
        assert book.drain(10)
    answers = book.answers("toy", "twice")
    assert [[row.sequence for row in rows] for rows in answers] == [[0, 1], [10, 11]]
    assert {(row.version, row.generation) for rows in answers for row in rows} == {("v1", 3)}
    assert book.answers("toy", "never") == []
    assert book.answers("valve", "twice") == []
