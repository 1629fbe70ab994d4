"""Labels in bulk: a CSV or NDJSON body becomes lists of labels, and a bad line is turned down alone, with its number.

Lines stand for themselves: a field cannot hold a line break, so a quote that is left open costs its line and no other.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

import msgspec

from clipdrift_serving.dataplane.errors import RequestError

Label: TypeAlias = str | int | float | bool
ReadLabel: TypeAlias = Callable[[str], Label]

COLUMNS = ("receipt", "request_id", "row", "label", "label_time")
CSV_TYPE = "text/csv"
NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_CHARSETS = ("", "utf-8", "utf8", "us-ascii")
_BOM = b"\xef\xbb\xbf"
_MAX_ROW = 2**31 - 1
_MAX_REJECTED = 1_000  # whose reasons are told; the rest is counted, so that an answer stays shorter than the file it is about
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?")


class RejectedLine(NamedTuple):
    """A line that holds no label; `reason` is one word for metrics."""

    line: int  # the first line of the body is 1
    reason: str
    message: str


class Uploaded(NamedTuple):
    """Labels of a file, in lists of one length, and what was turned down."""

    receipts: list[str]  # "": the label came by request id
    request_ids: list[str]  # "": the label came by receipt
    rows: list[int]  # of the request; 0 where none was given
    labels: list[Label]
    label_times_ms: list[int | None]  # None: none was given
    lines: list[int]  # where each label stands
    rejected: list[RejectedLine]  # the first 1,000
    num_rejected: int


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    label: str | bool | int | float
    receipt: str = ""
    request_id: str = ""
    row: int = 0
    label_time: str | int | float | None = None


_decode_line = msgspec.json.Decoder(_Line).decode


def label_of_text(text: str) -> Label:
    """A number where the text is one, else the text.

    Example:
        >>> [label_of_text(text) for text in ("1", "-0.5", "2e3", "worn", "nan")]
        [1, -0.5, 2000.0, 'worn', 'nan']
    """
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def label_of_classes(classes: Sequence[str]) -> ReadLabel:
    """Reads the labels of a model with these classes: the name of a class is that name, also where it looks like a number.

    Example:
        >>> read = label_of_classes(["0", "1", "many"])
        >>> read("1"), read("many"), read("2")
        ('1', 'many', 2)
    """
    known = frozenset(classes)
    return lambda text: text if text in known else label_of_text(text)


def time_ms(text: str) -> int:
    """Milliseconds since 1970 of a time: such a number, or ISO 8601 (without a zone it is UTC; finer digits are cut off).

    Raises:
        ValueError: It is neither.

    Example:
        >>> time_ms("2026-11-25T10:00:00.123456789+01:00"), time_ms("1764061200123")
        (1795597200123, 1764061200123)
    """
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"a time is ISO 8601 or milliseconds since 1970, got {text[:50]!r}") from error
    since = (when.replace(tzinfo=UTC) if when.tzinfo is None else when) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def parse_labels(body: bytes, content_type: str, max_rows: int, read_label: ReadLabel = label_of_text) -> Uploaded:
    """The labels of a body; lines that hold none are named in `rejected`.

    `text/csv` begins with a line of column names: `label`, and `receipt` or `request_id` (with `row` where a request had
    several); `label_time` is ISO 8601 or milliseconds since 1970. `application/x-ndjson` has an object with the same names on
    each line. UTF-8, with or without a byte order mark; lines end with LF or CRLF; empty lines are skipped.

    Args:
        body: The whole body, unpacked.
        content_type: Its media type as the header says.
        max_rows: Most lines that hold something, the column names aside.
        read_label: Makes a label of a CSV field; JSON says itself what is a number.

    Raises:
        RequestError: Another media type, column names that are not ours, or too many lines.

    Example:
        >>> uploaded = parse_labels(b"receipt,label\\nAQA,worn\\n,fine\\n", "text/csv", 10)
        >>> uploaded.receipts, uploaded.labels, uploaded.rejected[0].line
        (['AQA'], ['worn'], 3)
    """
    kind = _kind(content_type)
    lines = _numbered_lines(body.removeprefix(_BOM))
    uploaded = Uploaded([], [], [], [], [], [], [], 0)
    if kind == CSV_TYPE:
        num_rejected = _read_csv(lines, uploaded, max_rows, read_label)
    else:
        num_rejected = _read_all(lines, _decode_line, uploaded, max_rows)
    return uploaded._replace(num_rejected=num_rejected)


def _kind(content_type: str) -> str:
    kind, *parameters = [part.strip().lower() for part in content_type.split(";")]
    if kind != CSV_TYPE and kind not in NDJSON_TYPES:
        known = f"{CSV_TYPE} or {NDJSON_TYPES[0]}"
        raise RequestError("unknown_encoding", f"the content-type of labels must be {known}, got {content_type[:50]!r}")
    charsets = [value.strip('" ') for name, _, value in (part.partition("=") for part in parameters) if name == "charset"]
    if charsets and charsets[0] not in _CHARSETS:
        raise RequestError("unknown_encoding", f"labels must come as UTF-8, got charset {charsets[0][:30]!r}")
    return kind


def _numbered_lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines that hold something, with their numbers; the first is 1."""
    for number, line in enumerate(body.split(b"\n"), 1):
        if line and not line.isspace():
            yield number, line.removesuffix(b"\r")


def _read_csv(lines: Iterator[tuple[int, bytes]], uploaded: Uploaded, max_rows: int, read_label: ReadLabel) -> int:
    try:
        columns = [field.strip().lower() for field in _fields(next(lines)[1])]
    except StopIteration:
        raise RequestError("bad_input", f"the body is empty; its first line names the columns: {', '.join(COLUMNS)}") from None
    except ValueError as error:
        raise RequestError("bad_input", f"the first line must name the columns: {error}") from error
    _check_columns(columns)

    def of_csv(line: bytes) -> _Line:
        fields = _fields(line)
        if len(fields) != len(columns):
            raise ValueError(f"{len(columns)} fields must stand on each line, got {len(fields)}")
        given = dict(zip(columns, fields, strict=True))
        label, row = given["label"], given.get("row", "")
        if not label:
            raise ValueError("the label is empty")
        if row and not (row.isascii() and row.isdigit() and len(row) <= 10):
            raise ValueError(f"row must be a number from 0, got {row[:20]!r}")
        return _Line(
            read_label(label),
            given.get("receipt", ""),
            given.get("request_id", ""),
            int(row or 0),
            given.get("label_time") or None,
        )

    return _read_all(lines, of_csv, uploaded, max_rows)


def _check_columns(columns: Sequence[str]) -> None:
    known = f"known are {', '.join(COLUMNS)}"
    unknown = [name[:50] for name in columns if name not in COLUMNS]
    if unknown:
        hint = "; fields are separated by commas" if ";" in unknown[0] or "\t" in unknown[0] else ""
        raise RequestError("bad_input", f"unknown columns {unknown[:10]}: {known}{hint}")
    if len(set(columns)) != len(columns):
        raise RequestError("bad_input", f"a column is named twice: {list(columns)}")
    if "label" not in columns or not {"receipt", "request_id"} & set(columns):
        raise RequestError("bad_input", f"the columns must have label, and receipt or request_id, got {list(columns)}; {known}")


def _read_all(lines: Iterator[tuple[int, bytes]], read: Callable[[bytes], _Line], uploaded: Uploaded, max_rows: int) -> int:
    num_rejected = 0
    for count, (number, line) in enumerate(lines, 1):
        if count > max_rows:
            raise RequestError("too_large", f"an upload holds at most {max_rows} labels; send the file in parts")
        try:
            one = read(line)
            when = _checked_time(one)
        except ValueError as error:  # of UTF-8 and msgspec too
            num_rejected += 1
            if num_rejected <= _MAX_REJECTED:
                uploaded.rejected.append(RejectedLine(number, "bad_line", _words(error)))
            continue
        uploaded.receipts.append(one.receipt)
        uploaded.request_ids.append(one.request_id)
        uploaded.rows.append(one.row)
        uploaded.labels.append(one.label)
        uploaded.label_times_ms.append(when)
        uploaded.lines.append(number)
    return num_rejected


def _checked_time(one: _Line) -> int | None:
    """Time of a label whose line has been read; raises ValueError for what no reader could see alone."""
    if bool(one.receipt) == bool(one.request_id):
        raise ValueError("a label comes with its receipt or with its request_id, and with one of them")
    if not 0 <= one.row <= _MAX_ROW:
        raise ValueError(f"row must be a number from 0, got {one.row}")
    when = one.label_time
    if when is None or isinstance(when, int):
        return when
    if isinstance(when, float):
        raise ValueError(f"label_time in milliseconds is a whole number, got {when}")
    return time_ms(when.strip())


def _fields(line: bytes) -> list[str]:
    """Fields of a CSV line; raises ValueError when it is none."""
    text = line.decode()
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise ValueError(f"the line is no CSV: {error}") from error


def _words(error: ValueError) -> str:
    return "the line is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:200]
