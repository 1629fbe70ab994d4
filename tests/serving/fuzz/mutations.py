"""Requests that are nearly right: valid ones, changed in their JSON, tensors, headers, chunks or bytes; the same for each seed."""
# ruff: noqa: E501  (tables)

import gzip
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

INFER = "/v2/models/toy/infer"
FEEDBACK = "/v2/models/toy/feedback"
LABELS = "/v2/models/toy/labels"
_BIG = 300_000
_BOMB = gzip.compress(b" " * 50 * 1024 * 1024, mtime=0)
_JSON = ("content-type", "application/json")
_DTYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES", "BF16", "",
)  # fmt: skip
_SIZES = (-1, 0, 1, 3, 4, 8, 255, 4097, 65_536, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30)
_FLOATS = (float("nan"), float("inf"), -float("inf"), 1e39, -1e39, 1e308, 5e-324, -0.0, 0.1)
_WORDS = (
    "", "UA", "\0", "\ud800", "é" * 200, "x" * 4096, "x" * 5000, "../..", "%00", "NaN", "toy", "true", "\U0001f600", "-", "1e999",
)  # fmt: skip
_HEADERS = (
    ("content-encoding", "gzip"), ("content-encoding", "deflate"), ("content-encoding", "gzip, deflate"), ("content-encoding", "br"),
    ("transfer-encoding", "chunked"), ("transfer-encoding", "identity"), ("transfer-encoding", "gzip, chunked"),
    ("content-length", "0"), ("content-length", "5"), ("content-length", "-1"), ("content-length", "99999999999999999999"),
    ("content-length", "0x10"), ("content-length", "+5"), ("inference-header-content-length", "0"),
    ("inference-header-content-length", "7"), ("inference-header-content-length", "-7"),
    ("inference-header-content-length", "9" * 30), ("inference-header-content-length", "\u00b2"), ("expect", "100-continue"),
    ("expect", "x"), ("connection", "close"), ("connection", "keep-alive, upgrade"), ("upgrade", "h2c"), ("upgrade", "websocket"),
    ("accept-encoding", "gzip"), ("accept-encoding", "deflate;q=0, *;q=-1"), ("traceparent", "00-x"), ("x-request-id", "\x7f" * 300),
    ("authorization", "Bearer "), ("authorization", "Bearer " + "k" * 2000), ("x-api-key", "\xff"), ("host", ""), ("te", "trailers"),
    ("content-type", "text/csv"), ("content-type", "application/x-ndjson"), ("content-type", "application/cloudevents+json"),
    ("content-type", "text/csv; charset=utf-16"), ("content-type", "application/cloudevents-batch+json"), ("ce-id", ""),
    ("ce-type", "org.kubeflow.serving.inference.response"), ("ce-time", "0000-99-99T99:99:99Z"), ("ce-specversion", "9"),
    ("ce-inferenceservicename", "../x"), ("clipdrift-key", "\x80"), ("", "x"), ("x" * 500, "y" * 5000),
)  # fmt: skip


class Case(NamedTuple):
    """What is sent on one connection, and how the client leaves it."""

    is_admin: bool
    pieces: tuple[bytes, ...]
    is_rude: bool  # the client neither says that it is done nor waits for the answers


class _Message:
    """A request before it is bytes."""

    def __init__(self, method: str, path: str, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.method = method
        self.path = path
        self.body = body
        self.headers = [("host", "x"), *headers]
        self.is_admin = False
        self.chunk_sizes: list[int] | None = None

    def wire(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers)]
        if self.chunk_sizes is None:
            body = self.body
            lines.append(f"content-length: {len(body)}")
        else:
            body = _chunked(self.body, self.chunk_sizes)
            lines.append("transfer-encoding: chunked")
        return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


class Mutator:
    """Makes cases out of numbers.

    Args:
        seed: Of the whole run; case `n` of a seed is always the same bytes, given the same receipts.
        receipts: Real ones, so that labels are sometimes accepted.
    """

    def __init__(self, seed: int, receipts: tuple[str, ...]) -> None:
        self._seed = seed
        self._receipts = receipts or ("none",)
        self._changes: tuple[Callable[[random.Random, _Message], None], ...] = (
            _change_json, _change_json, _change_json, _change_json, _change_bytes, _change_bytes, _pack, _chunk, _chunk,
            _change_headers, _change_headers, _change_line,
        )  # fmt: skip

    def case(self, number: int) -> Case:
        """The case of that number, 0 or more."""
        rng = random.Random(f"{self._seed}/{number}")
        wires = []
        is_admin = rng.random() < 0.05
        for _ in range(rng.choice((1, 1, 1, 1, 2, 3, 40))):
            message = self._admin(rng) if is_admin else self._message(rng)
            for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
                rng.choice(self._changes)(rng, message)
            wires.append(message.wire())
        wire = b"".join(wires)
        if rng.random() < 0.25:
            wire = _damaged(rng, wire)
        return Case(is_admin, _pieces(rng, wire), rng.random() < 0.1)

    def _message(self, rng: random.Random) -> _Message:
        return rng.choice((_infer_json, _infer_json, _infer_json, _infer_binary, _infer_binary, self._feedback, self._upload,
                           _ingest, _ingest, _look))(rng)  # fmt: skip

    def _feedback(self, rng: random.Random) -> _Message:
        number = rng.choice((0, 1, 2, 30))
        given: dict[str, Any] = {"labels": [rng.choice((0, 1, "yes", "no", True)) for _ in range(number)]}
        if rng.random() < 0.3:
            given |= {"request_ids": ["abc"] * number, "rows": [0] * number}
        else:
            given["receipts"] = [rng.choice(self._receipts) for _ in range(number)]
        if rng.random() < 0.3:
            given["label_times_ms"] = [rng.choice((0, 4_000_000_000_000, 1_800_000_000_000))] * number
        return _Message("POST", FEEDBACK, json.dumps(given).encode(), (_JSON,))

    def _upload(self, rng: random.Random) -> _Message:
        labels, times = ("yes", "no", "1", "", "x", "1e400"), ("", "1800000000000", "x")
        rows = [(rng.choice(self._receipts), rng.choice(labels), rng.choice(times)) for _ in range(rng.choice((0, 1, 20)))]
        if rng.random() < 0.5:
            text = "receipt,label,label_time\n" + "".join(f"{','.join(row)}\n" for row in rows)
            return _Message("POST", LABELS, text.encode(), (("content-type", "text/csv"),))
        lines = [json.dumps({"receipt": receipt, "label": label}) for receipt, label, _ in rows]
        return _Message("POST", LABELS, "\n".join(lines).encode(), (("content-type", "application/x-ndjson"),))

    def _admin(self, rng: random.Random) -> _Message:
        method, path = rng.choice(
            (("GET", "/metrics"), ("GET", "/v1/models"), ("POST", "/v2/repository/index"), ("POST", "/v1/recording/flush"),
             ("POST", "/v2/repository/models/none/load"), ("POST", "/v2/repository/models/none/unload"))
        )  # fmt: skip
        made = _Message(method, path, b"{}" if method == "POST" else b"", (("authorization", "Bearer admin-secret"),))
        made.is_admin = True
        return made


# --- valid requests ---------------------------------------------------------------------------------------------------------


def _inputs(rows: int) -> list[dict[str, Any]]:
    return [
        {"name": "x", "shape": [rows], "datatype": "FP32", "data": [0.5] * rows},
        {"name": "y", "shape": [rows], "datatype": "FP32", "data": [0.25] * rows},
        {"name": "carrier", "shape": [rows], "datatype": "BYTES", "data": ["UA"] * rows},
    ]


def _infer_json(rng: random.Random) -> _Message:
    rows = rng.choice((1, 1, 2, 32, 600))
    given: dict[str, Any] = {"inputs": _inputs(rows)}
    if rng.random() < 0.3:
        given |= {"id": "abc", "parameters": {"event_time_ms": 1_000_000, "binary_data_output": rng.random() < 0.5}}
    if rng.random() < 0.3:
        given["outputs"] = [{"name": "probabilities", "parameters": {"binary_data": rng.random() < 0.5}}]
    return _Message("POST", INFER, json.dumps(given).encode(), (_JSON,))


def _infer_binary(rng: random.Random) -> _Message:
    rows = rng.choice((1, 2, 32))
    inputs = _inputs(rows)
    blobs = [struct.pack(f"<{rows}f", *[0.5] * rows), struct.pack(f"<{rows}f", *[0.25] * rows), b"\x02\0\0\0UA" * rows]
    for one, blob in zip(inputs, blobs, strict=True):
        del one["data"]
        one["parameters"] = {"binary_data_size": len(blob)}
        if rng.random() < 0.15:
            one["parameters"]["binary_data_size"] = rng.choice(_SIZES)
        if rng.random() < 0.15:
            one["datatype"] = rng.choice(_DTYPES)
        if rng.random() < 0.15:
            one["shape"] = [rng.choice(_SIZES) for _ in range(rng.choice((0, 1, 2, 9)))]
    head = json.dumps({"inputs": inputs}).encode()
    tensors = b"".join(blobs)
    if rng.random() < 0.3:
        tensors = _damaged(rng, tensors)
    length = len(head) if rng.random() < 0.9 else len(head) + rng.choice((-1, 1, 7, 10_000))
    return _Message("POST", INFER, head + tensors, (("inference-header-content-length", str(length)),))


def _ingest(rng: random.Random) -> _Message:
    name = f"id-{rng.randrange(50)}"
    kind = rng.choice(("request", "response"))
    if kind == "request":
        payload: dict[str, Any] = rng.choice(({"instances": [[1.0, 2.0]]}, {"inputs": _inputs(2)}))
    else:
        payload = rng.choice(
            (
                {"predictions": [0.5]},
                {"model_name": "toy", "outputs": [{"name": "value", "shape": [2], "datatype": "FP32", "data": [1, 2]}]},
            )
        )
    event = {"id": name, "type": f"org.kubeflow.serving.inference.{kind}", "specversion": "1.0", "source": "x",
             "time": "2026-01-01T00:00:00Z", "inferenceservicename": "toy", "namespace": "n", "component": "predictor",
             "endpoint": "e"}  # fmt: skip
    if rng.random() < 0.5:
        headers = tuple((f"ce-{key}", value) for key, value in event.items())
        return _Message("POST", "/v1/ingest", json.dumps(payload).encode(), (*headers, _JSON))
    if rng.random() < 0.5:
        return _Message(
            "POST",
            "/v1/ingest",
            json.dumps({**event, "data": payload}).encode(),
            (("content-type", "application/cloudevents+json"),),
        )
    events = [{**event, "data": payload}] * rng.choice((0, 1, 3))
    return _Message(
        "POST", "/v1/ingest", json.dumps(events).encode(), (("content-type", "application/cloudevents-batch+json"),)
    )


def _look(rng: random.Random) -> _Message:
    path = rng.choice(
        ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/toy", "/v2/models/toy/ready", "/v2/models/toy/config",
         "/v2/models/toy/stats", "/v2/models/stats", "/v2/openapi.json", "/v2/models/toy/versions/v1", "/v2/models/none")
    )  # fmt: skip
    return _Message(rng.choice(("GET", "GET", "HEAD")), path)


# --- changes ----------------------------------------------------------------------------------------------------------------


def _change_json(rng: random.Random, message: _Message) -> None:
    """One node of the JSON in the body becomes another, goes, or comes again."""
    try:
        tree, end = json.JSONDecoder().raw_decode(message.body.decode("latin-1"))
    except (ValueError, RecursionError):
        return
    nodes = list(_nodes(tree))
    if nodes:
        parent, key = rng.choice(nodes)
        _change_node(rng, parent, key)
    text = json.dumps(tree).encode()
    if rng.random() < 0.05:
        text = text.replace(b'"inputs"', b'"id":1,"inputs":[],"inputs"', 1)  # a key that comes twice
    if rng.random() < 0.05:
        text = text.replace(
            b"0.5", rng.choice((b"NaN", b"1e999", b"-", b"00", b"0x1", b"1" * 5000, b'"\\ud800"', b"[" * 2000)), 1
        )
    message.body = text + message.body[end:]


def _nodes(tree: Any, depth: int = 0) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items)[:40]:
        yield tree, key
        if depth < 6:
            yield from _nodes(value, depth + 1)


def _change_node(rng: random.Random, parent: Any, key: Any) -> None:
    action = rng.randrange(8)
    if action == 0:
        del parent[key]
    elif action == 1:
        parent[key] = [parent[key]] * rng.choice((0, 1, 2, 50, 2000))
    elif action == 2 and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif action == 3 and isinstance(parent, dict):
        parent[rng.choice(_WORDS)] = parent.pop(key)
    else:
        parent[key] = _value(rng)


def _value(rng: random.Random) -> Any:
    kind = rng.randrange(8)
    if kind == 0:
        nested: Any = []
        for _ in range(rng.choice((3, 90, 900))):
            nested = [nested]
        return nested
    if kind == 1:
        return {rng.choice(_WORDS): _value(rng) for _ in range(rng.randrange(3))}
    if kind == 2:
        return [_value(rng) for _ in range(rng.randrange(4))]
    return rng.choice(
        (None, True, False, rng.choice(_SIZES), rng.choice(_FLOATS), rng.choice(_WORDS), rng.choice(_DTYPES), {}, [])
    )


def _change_bytes(rng: random.Random, message: _Message) -> None:
    message.body = _damaged(rng, message.body)


def _pack(rng: random.Random, message: _Message) -> None:
    """Compress the body, sometimes cut off, damaged, twice, or under the other's name."""
    name, packed = rng.choice((("gzip", gzip.compress(message.body, 1, mtime=0)), ("deflate", zlib.compress(message.body, 1))))
    if rng.random() < 0.1:
        name, packed = "gzip", _BOMB
    if rng.random() < 0.4:
        packed = _damaged(rng, packed)
    if rng.random() < 0.2:
        name = rng.choice(("gzip", "deflate", "x-gzip", "identity"))
    message.body = packed
    message.headers.append(("content-encoding", name))


def _chunk(rng: random.Random, message: _Message) -> None:
    message.chunk_sizes = [rng.choice((1, 2, 7, 100, 5000)) for _ in range(rng.choice((1, 3, 10)))]
    if rng.random() < 0.1:
        message.body *= rng.choice((0, 2, 20))


def _chunked(body: bytes, sizes: list[int]) -> bytes:
    parts, position, turn = [], 0, 0
    while position < len(body):
        size = max(sizes[turn % len(sizes)], len(body) // 20_000)
        part = body[position : position + size]
        parts.append(b"%x\r\n%b\r\n" % (len(part), part))
        position, turn = position + size, turn + 1
    return b"".join(parts) + b"0\r\n\r\n"


def _change_headers(rng: random.Random, message: _Message) -> None:
    action = rng.randrange(3)
    if action == 0 and message.headers:
        del message.headers[rng.randrange(len(message.headers))]
    elif action == 1 and message.headers:
        name, _ = rng.choice(message.headers)
        message.headers.append((name, rng.choice(_WORDS)))
    else:
        message.headers += [rng.choice(_HEADERS)] * rng.choice((1, 1, 1, 2, 300))


def _change_line(rng: random.Random, message: _Message) -> None:
    if rng.random() < 0.4:
        message.method = rng.choice(
            ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PRI", "get", "", "A" * 99)
        )
    else:
        at = rng.randrange(len(message.path) + 1)
        word = rng.choice(
            ("%", "%00", "%2f", "%ff", "//", "..", "?", "#", " ", "\0", "é", "a" * 300, "/versions/v9", ":", "\t")
        )
        message.path = message.path[:at] + word + message.path[at:]


def _damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes flipped, cut out, cut off, put in or sent again."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, action = rng.randrange(len(changed) + 1), rng.randrange(5)
        size = rng.choice((1, 1, 4, 40))
        if action == 0:
            for position in range(at, min(at + size, len(changed))):
                changed[position] ^= 1 << rng.randrange(8)
        elif action == 1:
            del changed[at : at + size]
        elif action == 2:
            changed[at:at] = rng.randbytes(size)
        elif action == 3:
            changed[at:at] = changed[max(0, at - 200) : at] * (size if len(changed) < _BIG else 1)
        elif rng.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def _pieces(rng: random.Random, wire: bytes) -> tuple[bytes, ...]:
    """As they go to the socket, one after the other."""
    cuts = sorted(rng.randrange(len(wire) + 1) for _ in range(rng.choice((0, 0, 1, 5))))
    return tuple(wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True) if b > a)
