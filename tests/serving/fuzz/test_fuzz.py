"""Twenty seconds of broken requests; `make fuzz-serving` sends ten minutes of them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzz import Fuzzer, answers, serving
from mutations import Mutator


def test_a_case_is_the_same_bytes_every_time_and_another_by_another_seed():
    first, again, other = Mutator(1, ("r",)), Mutator(1, ("r",)), Mutator(2, ("r",))
    assert [first.case(n) for n in range(300)] == [again.case(n) for n in range(300)]
    assert [first.case(n) for n in range(300)] != [other.case(n) for n in range(300)]


def test_answers_are_read_one_after_the_other_whatever_their_bodies_hold():
    ok = b"HTTP/1.1 200 OK\r\ninference-header-content-length: 2\r\ncontent-length: 9\r\n\r\nHTTP/1.0 "
    head = b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n"
    assert list(answers(ok + head + ok)) == [200, 404, 200]
    assert list(answers(b"HTTP/1.1 100 Continue\r\n\r\n" + ok)) == [100, 200]
    assert list(answers(ok + b"HTTP/1.1 20")) == [200]


@pytest.mark.parametrize(
    "got", [b"hello", b"HTTP/1.1 200 OK\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"]
)
def test_what_is_no_http_answer_is_told(got):
    with pytest.raises(ValueError, match="answer"):
        list(answers(got))


@pytest.mark.slow
@pytest.mark.system
def test_twenty_seconds_of_broken_requests_bring_no_fault_and_disturb_nobody(tmp_path):
    with serving(tmp_path) as server:
        # 8 s: a hang fails, a busy machine does not
        outcome = Fuzzer(server, seed=20, max_growth_mib=30, answer_seconds=8).run(20)
    assert not outcome.failures
    assert outcome.num_cases > 500
    assert outcome.num_ordinary > 50
    assert outcome.statuses[200] > 100  # the changes leave enough of the requests whole
    assert outcome.statuses[400] > 100
