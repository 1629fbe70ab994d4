"""Log entries are JSON on one line, hold no secret, and name the request; the access log is a sample."""

import io
import json
import logging
from queue import Queue

import pytest

from clipdrift_serving.operations.logs import AccessLog, JsonFormatter, _AsTheyAre, start_logging, valid_traceparent

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"  # the example of W3C Trace Context, section 3.2


@pytest.fixture
def entries():
    """What has been logged, as a function that ends the logging."""
    root = logging.getLogger()
    handlers, level, stream = list(root.handlers), root.level, io.StringIO()
    listener = start_logging(["hunter2-token", "", "ab"], stream)

    def told():
        listener.stop()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield told
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_message_with_line_ends_quotes_and_lone_surrogates_stays_one_line():
    # formatted here, not logged: what pytest catches of a log must be UTF-8 to be told by a worker of the test run
    record = logging.LogRecord("a.b", logging.WARNING, __file__, 1, 'x\n{"level":"info"}\r\u2028 %s', ("\ud800",), None)
    (line,) = JsonFormatter().format(record).splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"]) == ("warning", "a.b")
    assert entry["message"].startswith('x\n{"level":"info"}')


def test_a_secret_is_blanked_in_messages_fields_and_exceptions(entries):
    log = logging.getLogger("a")
    log.error("Bearer %s and ab", "hunter2-token", extra={"fields": {"request_id": "x-hunter2-token"}})
    try:
        raise ValueError("bad hunter2-token")
    except ValueError:
        log.exception("failed")
    first, second = entries()
    assert first["message"] == "Bearer [secret] and ab"
    assert first["request_id"] == "x-[secret]"
    assert "ValueError: bad [secret]" in second["exception"]


def test_the_time_of_an_entry_is_utc_and_says_so():
    record = logging.LogRecord("a", logging.INFO, "", 0, "x", None, None)
    record.created, record.msecs = 1_700_000_000.25, 250.0
    assert json.loads(JsonFormatter().format(record))["time"] == "2023-11-14T22:13:20.250Z"


def test_an_entry_tells_the_request_in_text_too_and_stays_one_line(caplog):
    with caplog.at_level(logging.INFO):
        AccessLog(1.0).ended(503, 0.25, model="toy", version="v1", rows=3, request_id="a\nb")
    assert caplog.messages == ["answered 503 for model 'toy' 'v1', 3 rows, request 'a\\nb', in 0.25 s"]


def test_records_that_nobody_writes_are_bounded_and_their_number_is_told():
    queue = Queue(2)
    handler = _AsTheyAre(queue)
    for number in range(5):
        handler.handle(logging.LogRecord("a", logging.INFO, "", 0, str(number), None, None))
    assert [queue.get().getMessage() for _ in range(2)] == ["0", "1"]
    for number in range(5, 7):
        handler.handle(logging.LogRecord("a", logging.INFO, "", 0, str(number), None, None))
    told, silent = queue.get(), queue.get()
    assert (told.getMessage(), told.fields) == ("5", {"num_dropped_before": 3})
    assert not hasattr(silent, "fields")


def test_a_secret_that_holds_another_is_blanked_whole():
    record = logging.LogRecord("a", logging.INFO, "", 0, "secret-1-long", None, None)
    assert json.loads(JsonFormatter(["secret-1", "secret-1-long"]).format(record))["message"] == "[secret]"


def test_an_entry_tells_the_request(entries):
    AccessLog(1.0).ended(200, 0.0123456789, model="toy", version="v1", rows=3, request_id="r" * 500, traceparent=TRACE)
    (entry,) = entries()
    assert {key: entry[key] for key in ("status", "seconds", "model", "version", "rows", "traceparent")} == {
        "status": 200, "seconds": 0.012346, "model": "toy", "version": "v1", "rows": 3, "traceparent": TRACE,
    }  # fmt: skip
    assert entry["request_id"] == "r" * 128


@pytest.mark.parametrize(
    "header",
    ["", TRACE.upper(), "ff" + TRACE[2:], TRACE + "-x", TRACE + "\n", TRACE.replace("00f067aa0ba902b7", "0" * 16)],
)
def test_what_is_no_traceparent_is_left_out(header):
    assert valid_traceparent(header) == ""


def test_good_answers_are_sampled_and_errors_are_not(entries):
    log = AccessLog(0.1, max_errors_per_second=1000, seconds_now=lambda: 1.0, seed=7)
    for _ in range(2000):
        log.ended(200, 0.001)
    for _ in range(50):
        log.ended(422, 0.001)
    found = [entry["status"] for entry in entries()]
    assert found.count(422) == 50
    assert 140 < found.count(200) < 260  # 200 expected, standard deviation 13


def test_errors_beyond_the_bound_are_told_as_a_number(entries):
    now = [1.0]
    log = AccessLog(0.0, max_errors_per_second=3, seconds_now=lambda: now[0])
    for _ in range(10):
        log.ended(500, 0.001)
    now[0] = 2.0
    log.ended(503, 0.001)
    found = entries()
    assert [entry.get("status") for entry in found] == [500, 500, 500, None, 503]
    assert found[3]["message"].startswith("7 errors")


def test_a_ratio_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match="ratio"):
        AccessLog(1.5)
