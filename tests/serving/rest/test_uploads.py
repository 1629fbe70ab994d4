"""Labels in bulk: what is read, what is turned down, and on which line."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.rest.uploads import label_of_classes, label_of_text, parse_labels, time_ms

NDJSON = "application/x-ndjson"


def csv_of(text: str, **more):
    return parse_labels(text.encode(), "text/csv", more.pop("max_rows", 100), **more)


def lines_of(*objects, max_rows=100):
    return parse_labels("\n".join(json.dumps(one) for one in objects).encode(), NDJSON, max_rows)


def test_a_table_of_receipts_becomes_lists_of_one_length():
    uploaded = csv_of("receipt,label,label_time\nAQA,worn,2026-11-25T10:00:00Z\nAQB,1,1764061200123\nAQC,0.5,\n")

    assert uploaded.receipts == ["AQA", "AQB", "AQC"]
    assert uploaded.labels == ["worn", 1, 0.5]
    assert uploaded.label_times_ms == [1795600800000, 1764061200123, None]
    assert uploaded.request_ids == ["", "", ""]
    assert uploaded.lines == [2, 3, 4]
    assert (uploaded.rejected, uploaded.num_rejected) == ([], 0)


def test_a_table_of_request_ids_has_rows_from_0():
    uploaded = csv_of("request_id,row,label\norder-1,,fine\norder-1,1,worn\n")

    assert (uploaded.request_ids, uploaded.rows) == (["order-1", "order-1"], [0, 1])
    assert uploaded.receipts == ["", ""]


def test_receipts_and_request_ids_may_stand_in_one_table():
    uploaded = csv_of("receipt,request_id,label\nAQA,,1\n,order-1,0\n")

    assert (uploaded.receipts, uploaded.request_ids) == (["AQA", ""], ["", "order-1"])


def test_json_lines_say_themselves_what_is_a_number():
    uploaded = lines_of(
        {"receipt": "A", "label": "1"},
        {"receipt": "B", "label": 1},
        {"receipt": "C", "label": 0.5, "label_time": 5},
        {"request_id": "r", "row": 2, "label": True, "label_time": "1970-01-01T00:00:01+00:00"},
    )

    assert [(type(label), label) for label in uploaded.labels] == [(str, "1"), (int, 1), (float, 0.5), (bool, True)]
    assert uploaded.label_times_ms == [None, None, 5, 1000]
    assert uploaded.rows == [0, 0, 0, 2]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_byte_order_marks_quotes_and_empty_lines_are_what_programs_write(end, mark):
    lines = ["", '"Label", RECEIPT', "", '"worn, or ""so""",AQA', "   ", "fine,AQB", ""]

    uploaded = csv_of(mark + end.join(lines))

    assert uploaded.labels == ['worn, or "so"', "fine"]
    assert uploaded.receipts == ["AQA", "AQB"]
    assert uploaded.lines == [4, 6]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("AQA", "3 fields must stand on each line, got 1"),
        ("AQA,worn,,", "got 4"),
        ("AQA,,", "the label is empty"),
        (",worn,", "with its receipt or with its request_id"),
        ('AQA,"worn,', "no CSV"),
        ('AQA,"worn"x,', "no CSV"),
        ("AQA,worn,yesterday", "ISO 8601 or milliseconds"),
        ("AQA,worn,1.5", "ISO 8601 or milliseconds"),
    ],
)
def test_a_bad_line_is_turned_down_alone_with_its_number(line, words):
    uploaded = csv_of(f"receipt,label,label_time\nfirst,1,\n{line}\nlast,1,\n")

    assert uploaded.receipts == ["first", "last"]
    assert uploaded.lines == [2, 4]
    ((number, reason, message),) = uploaded.rejected
    assert (number, reason) == (3, "bad_line")
    assert words in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "truncated"),
        ("[1]", "Expected `object`"),
        ('{"receipt": "A"}', "label"),
        ('{"receipt": "A", "label": null}', "label"),
        ('{"receipt": "A", "label": NaN}', "invalid"),
        ('{"receipt": 7, "label": 1}', "receipt"),
        ('{"receipt": "A", "request_id": "b", "label": 1}', "with one of them"),
        ('{"request_id": "b", "row": -1, "label": 1}', "row must be a number from 0, got -1"),
        ('{"receipt": "A", "label": 1, "label_time": 1.5}', "whole number"),
        ('{"receipt": "A", "label": 1, "lable_time": 1}', "lable_time"),
        ('{"receipt": ' + "[" * 5_000, "Expected `str`"),
    ],
)
def test_a_bad_line_of_json_is_turned_down_alone(line, words):
    good = '{"receipt": "A", "label": 1}'

    uploaded = parse_labels(f"{good}\n{line}\n{good}".encode(), NDJSON, 10)

    assert uploaded.lines == [1, 3]
    ((number, reason, message),) = uploaded.rejected
    assert (number, reason) == (2, "bad_line")
    assert words in message


@pytest.mark.parametrize("kind", ["text/csv", NDJSON])
def test_a_line_that_is_not_utf_8_is_turned_down_alone(kind):
    lines = (
        [b"receipt,label", b"A,\xff", b"B,1"]
        if kind == "text/csv"
        else [b"", b'{"receipt":"\xff","label":1}', b'{"receipt":"B","label":1}']
    )

    uploaded = parse_labels(b"\n".join(lines), kind, 10)

    assert uploaded.receipts == ["B"]
    assert [(one.line, one.reason) for one in uploaded.rejected] == [(2, "bad_line")]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("", "the body is empty; its first line names the columns"),
        ("receipt;label", "fields are separated by commas"),
        ("receipt,truth", r"unknown columns \['truth'\]: known are receipt, request_id, row, label, label_time"),
        ("receipt,label,label", "named twice"),
        ("label", "must have label, and receipt or request_id"),
        ("receipt,request_id", "must have label"),
        ('"receipt,label', "must name the columns"),
    ],
)
def test_wrong_column_names_are_refused_with_the_known_ones(columns, words):
    with pytest.raises(RequestError, match=words) as raised:
        csv_of(columns + "\n")

    assert raised.value.fault == "bad_input"


@pytest.mark.parametrize("kind", ["application/json", "", "text/csv; charset=latin-1", "text/csv;charset=utf-16"])
def test_another_media_type_or_charset_is_refused(kind):
    with pytest.raises(RequestError) as raised:
        parse_labels(b"receipt,label\n", kind, 10)

    assert raised.value.fault == "unknown_encoding"


@pytest.mark.parametrize("kind", ["Text/CSV", 'text/csv; charset="UTF-8"', "text/csv; header=present"])
def test_a_media_type_may_have_parameters(kind):
    assert parse_labels(b"receipt,label\nA,1", kind, 10).labels == [1]


@pytest.mark.parametrize("num_bad", [0, 3])
def test_more_lines_than_allowed_are_refused_whole_good_or_bad(num_bad):
    text = "receipt,label\n" + "A,1\n" * (10 - num_bad) + "bad\n" * num_bad

    assert len(csv_of(text, max_rows=10).labels) == 10 - num_bad
    with pytest.raises(RequestError) as raised:
        csv_of(text + "A,1\n", max_rows=10)
    assert raised.value.fault == "too_large"


def test_of_many_bad_lines_the_first_are_told_and_all_are_counted():
    uploaded = csv_of("receipt,label\n" + "bad\n" * 1_500 + "A,1\n", max_rows=2_000)

    assert len(uploaded.rejected) == 1_000
    assert uploaded.num_rejected == 1_500
    assert uploaded.receipts == ["A"]


def test_the_names_of_classes_stay_names_and_other_fields_are_tried_as_numbers():
    uploaded = csv_of("receipt,label\nA,10\nB,20\nC,worn\n", read_label=label_of_classes(["10", "worn"]))

    assert uploaded.labels == ["10", 20, "worn"]


@pytest.mark.parametrize("text", ["1_000", "nan", "inf", "Infinity", "0x10", "1e", "--1", "１２", " 1", "true", "1,5"])
def test_what_only_looks_like_a_number_is_a_word(text):
    assert label_of_text(text) == text


@given(st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_that_is_written_is_read_again(number):
    assert label_of_text(str(number)) == number


WORDS = st.tuples(st.text("ab,\"' é;\t", min_size=1), st.text('xyz",', min_size=1))


@given(st.lists(WORDS.filter(lambda one: one[0].strip()), min_size=1))
def test_fields_are_read_as_the_standard_library_writes_them(rows):
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["receipt", "label"])
    writer.writerows(rows)

    uploaded = csv_of(file.getvalue())

    assert list(zip(uploaded.receipts, uploaded.labels, strict=True)) == rows


@given(st.integers(0, 4_102_444_800_000_000))
def test_a_time_without_a_zone_is_utc_and_finer_digits_are_cut_off(microseconds):
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)

    assert time_ms(when.isoformat()) == time_ms(when.replace(tzinfo=None).isoformat()) == microseconds // 1000


@given(st.binary(max_size=300), st.sampled_from(["text/csv", NDJSON]))
def test_whatever_bytes_come_they_are_read_or_refused(body, kind):
    try:
        uploaded = parse_labels(body, kind, 100)
    except RequestError:
        return
    lists = (uploaded.receipts, uploaded.request_ids, uploaded.rows, uploaded.labels, uploaded.label_times_ms, uploaded.lines)
    assert len(set(map(len, lists))) == 1
