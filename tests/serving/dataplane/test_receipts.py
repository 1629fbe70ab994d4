"""Receipts say what was predicted, and nothing that was changed."""

import numpy as np
import pytest
from toy_service import KEY

from clipdrift_contract.errors import ConfigError
from clipdrift_serving.dataplane.receipts import ReceiptBook, ReceiptError

EPOCH = "0123456789abcdef"


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
    for place in range(len(token) - 1):  # the last character holds spare bits
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


@pytest.mark.parametrize("keys", [[], ["xyz"], ["11"]])
def test_a_key_that_protects_nothing_is_refused(keys):
    with pytest.raises(ConfigError):
        ReceiptBook(keys, EPOCH)
