"""Receipts say what was predicted, and nothing that was changed."""

import base64

import numpy as np
import pytest

from clipdrift_contract.errors import ConfigError
from clipdrift_serving.dataplane.receipts import ReceiptBook, ReceiptError

EPOCH = "0123456789abcdef"
KEY = "11" * 32


def _issue(book, scores_NK, predicted=None):
    n = len(scores_NK)
    predicted_N = scores_NK.argmax(1).astype("f8") if predicted is None else np.asarray(predicted, "f8")
    return book.issue(
        "model", "v1", "canary", 7, np.arange(n, dtype="u8"), np.arange(n) + 1000, np.full(n, 3, "i2"), predicted_N, scores_NK
    )


@pytest.mark.parametrize("num_classes", [2, 3, 16, 17, 100])
def test_what_goes_in_comes_out(num_classes):
    scores_NK = np.random.default_rng(0).dirichlet(np.full(num_classes, 0.1), size=20).astype("f4")
    book = ReceiptBook([KEY], EPOCH)
    for row, token in enumerate(_issue(book, scores_NK)):
        receipt = book.verify(token)
        assert (receipt.model, receipt.version, receipt.role, receipt.generation) == ("model", "v1", "canary", 7)
        assert (receipt.epoch, receipt.sequence, receipt.event_time_ms, receipt.slice_index) == (EPOCH, row, 1000 + row, 3)
        assert receipt.predicted == scores_NK[row].argmax()
        top = np.argsort(-scores_NK[row])[:16]  # beyond 16 classes the receipt carries the top ones
        np.testing.assert_allclose(np.array(receipt.scores)[top], scores_NK[row][top], atol=1e-4)
        assert sum(receipt.scores) == pytest.approx(1.0, abs=1e-3)


def test_a_value_is_carried_exactly():
    book = ReceiptBook([KEY], EPOCH)
    (token,) = _issue(book, np.zeros((1, 0), "f4"), predicted=[0.1])
    assert (book.verify(token).predicted, book.verify(token).scores) == (0.1, ())


def test_each_changed_or_missing_character_is_noticed():
    book = ReceiptBook([KEY], EPOCH)
    (token,) = _issue(book, np.array([[0.3, 0.7]], "f4"))
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        for bad in (token[:place] + other + token[place + 1 :], token[:place]):
            with pytest.raises(ReceiptError) as caught:
                book.verify(bad)
            assert caught.value.reason == "forged"


def test_after_rotation_old_receipts_hold_while_their_key_is_kept():
    old, new = KEY, "22" * 32
    (token,) = _issue(ReceiptBook([old], EPOCH), np.array([[0.3, 0.7]], "f4"))
    assert ReceiptBook([new, old], EPOCH).verify(token).predicted == 1.0
    with pytest.raises(ReceiptError):
        ReceiptBook([new], EPOCH).verify(token)


# written by the first release, whose receipts had no key hint and no zeros before the signature
_OF_THE_FIRST_RELEASE = {
    0: "AQABAAcAAAABI0VniavN7wkAAAAAAAAA6AMAAAAAAAADAAAAmpmZmZmZuT8FZGVsYXkCdjEVXMaemJWsRmFMj4k",
    2: "AQABAgcAAAABI0VniavN7wkAAAAAAAAA6AMAAAAAAAADAAIAAAAAAAAA8D9VVaqqBWRlbGF5AnYxxSQGhCxn9Wf3_MhI",
    17: "AQABEAcAAAABI0VniavN7wkAAAAAAAAA6AMAAAAAAAADABEAAAAAAAAAMEAQAHIcDwDFGg4AGRkNAG0XDADAFQsAFBQKAGgSCQC7EAgADw8HAGMN"
    "BgC2CwUACgoEAF4IAwCxBgIABQUBAFkDBWRlbGF5AnYx8Xk0hKIl1NKePBbX",
}


@pytest.mark.parametrize("num_classes", _OF_THE_FIRST_RELEASE)
def test_receipts_of_the_first_release_hold(num_classes):
    receipt = ReceiptBook(["22" * 32, KEY], EPOCH).verify(_OF_THE_FIRST_RELEASE[num_classes])
    assert (receipt.model, receipt.version, receipt.role, receipt.generation, receipt.epoch) == (
        "delay", "v1", "canary", 7, EPOCH,
    )  # fmt: skip
    assert (receipt.sequence, receipt.event_time_ms, receipt.slice_index) == (9, 1000, 3)
    assert receipt.predicted == (num_classes - 1 if num_classes else 0.1)
    weights = np.arange(1, num_classes + 1)
    np.testing.assert_allclose(receipt.scores, weights / max(1, weights.sum()), atol=1e-5)


@pytest.mark.parametrize("num_classes", [0, 2, 3, 16])
def test_rows_packed_one_by_one_and_all_at_once_say_the_same(num_classes):
    scores_NK = (
        np.random.default_rng(1).dirichlet(np.ones(num_classes), size=40).astype("f4")
        if num_classes
        else np.zeros((40, 0), "f4")
    )
    scores_NK[:2] = 0.0
    scores_NK[2:3, :1] = 1.5  # cut off at 1
    predicted_N = np.random.default_rng(2).normal(size=40)
    book = ReceiptBook([KEY], EPOCH)
    columns = np.arange(40, dtype="u8"), np.arange(40) + 1000, np.full(40, -1, "i2"), predicted_N, scores_NK
    together = book.pack("m", "v", "champion", 0, *columns).rows
    alone = [book.pack("m", "v", "champion", 0, *(c[n : n + 1] for c in columns)).rows[0] for n in range(40)]
    assert [row[:28] for row in together] == [row[:28] for row in alone]
    codes = [np.array([np.frombuffer(row[28:], "<u2") for row in rows], "i4") for rows in (together, alone)]
    assert (np.abs(codes[0] - codes[1]) <= 1).all()  # 32 against 64 bits of precision before rounding


def test_the_key_hint_is_only_a_hint():
    (token,) = _issue(ReceiptBook([KEY], EPOCH), np.array([[0.3, 0.7]], "f4"))
    hints = {_raw(_issue(ReceiptBook([f"{n:02x}" * 32], EPOCH), np.array([[0.3, 0.7]], "f4"))[0])[1] for n in range(50)}
    assert len(hints) > 30
    # 300 keys before it: some have the hint of the one that signed
    keys = [f"{n:064x}" for n in range(300)]
    assert ReceiptBook([*keys, KEY], EPOCH).verify(token).sequence == 0


def test_two_keys_that_signed_the_same_prefix_are_told_apart_at_every_turn():
    books = [ReceiptBook([key], EPOCH) for key in _keys_of_one_hint()]
    tokens = [_issue(book, np.array([[0.3, 0.7]] * 3, "f4")) for book in books]
    both = ReceiptBook([*_keys_of_one_hint()], EPOCH)
    for row in range(3):
        assert [both.verify(token[row]).sequence for token in tokens] == [row, row]
    for row in range(3):
        with pytest.raises(ReceiptError):
            books[0].verify(tokens[1][row])


def test_what_was_packed_before_a_rotation_is_signed_with_the_newest_key():
    old, new = ReceiptBook([KEY], EPOCH), ReceiptBook(["22" * 32], "ff" * 8)
    rows = old.pack(
        "m", "v", "champion", 3, np.array([5, 6]), np.array([1, 2]), np.zeros(2, "i2"), np.zeros(2), np.zeros((2, 2), "f4")
    )
    receipts = [new.verify(token) for token in new.sign(rows)]
    assert [(one.sequence, one.epoch, one.event_time_ms) for one in receipts] == [(5, EPOCH, 1), (6, EPOCH, 2)]


def test_names_of_heads_may_be_long_and_ones_that_find_no_room_are_refused():
    columns = np.array([5]), np.array([1]), np.zeros(1, "i2"), np.zeros(1), np.zeros((1, 0), "f4")
    book = ReceiptBook([KEY], EPOCH)
    for length in range(130, 141):
        name = "m" * length
        assert book.verify(book.issue(name, "v", "shadow", 3, *columns)[0]).model == name
    with pytest.raises(ValueError, match="at most 255 bytes"):
        book.issue("m" * 256, "v", "shadow", 3, *columns)


def test_no_rows_give_no_receipts():
    assert ReceiptBook([KEY], EPOCH).issue(
        "m", "v", "champion", 1, np.zeros(0, "u8"), np.zeros(0, "i8"), np.zeros(0, "i2"), np.zeros(0), np.zeros((0, 2), "f4")
    ) == []  # fmt: skip


@pytest.mark.parametrize("token", ["", "A", "AAAA", "AAAA" * 40, "\u00e9" * 120, "=" * 120, "\x00", None, 7, b"AAAA"])
def test_what_is_no_receipt_is_called_forged(token):
    with pytest.raises(ReceiptError) as caught:
        ReceiptBook([KEY], EPOCH).verify(token)
    assert caught.value.reason == "forged"


def _raw(token):
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))


def _keys_of_one_hint():
    """Two keys whose hint bytes are equal: found by looking, as there are only 256 hints."""
    known = {}
    for number in range(1000):
        key = f"{number:064x}"
        hint = _raw(_issue(ReceiptBook([key], EPOCH), np.array([[0.3, 0.7]], "f4"))[0])[1]
        if hint in known:
            return known[hint], key
        known[hint] = key
    raise AssertionError("no two of 1000 keys share a hint of 256")


@pytest.mark.parametrize("keys", [[], ["xyz"], ["11"]])
def test_a_key_that_protects_nothing_is_refused(keys):
    with pytest.raises(ConfigError):
        ReceiptBook(keys, EPOCH)
