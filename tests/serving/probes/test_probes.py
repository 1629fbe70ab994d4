"""What strangers send to break a server: each is a client error within a second, and costs nobody else anything.

A probe is bytes on a socket and the statuses that may come back; `None` among them: the connection may be closed without a word,
because no HTTP answer is possible. While a probe runs, another client's ordinary request must be answered.
"""

import contextlib
import gzip
import json
import re
import resource
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from serving_process import INPUTS, Process, wait_until
from toy_service import write_model

pytestmark = pytest.mark.system
ANSWER_SECONDS = 1.0
MAX_GROWTH_MIB = 50
LIMITS = {
    "head_seconds": 1.0, "body_seconds": 1.0, "idle_seconds": 2.0, "send_seconds": 1.0, "max_connections": 400,
    "max_body_bytes": 4 * 1024 * 1024,
}  # fmt: skip
INFER = "/v2/models/toy/infer"
CLIENT = frozenset(range(400, 500))


class Probe(NamedTuple):
    data: bytes
    statuses: frozenset[int | None]
    seconds: float = ANSWER_SECONDS


def post(body: bytes, path: str = INFER, headers: str = "", *, length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) if length is None else length}\r\n{headers}\r\n"
    return head.encode() + body


def chunked(body: bytes, size: int, path: str = INFER) -> bytes:
    parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[at : at + size] for at in range(0, len(body), size))]
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + b"".join(parts) + b"0\r\n\r\n"


def infer(x: dict | None = None, **changes) -> bytes:
    """An inference request in which the input x is changed."""
    first = {**INPUTS[0], **(x or {})}
    return json.dumps({"inputs": [{k: v for k, v in first.items() if v is not ...}, *INPUTS[1:]], **changes}).encode()


def only(*statuses: int | None) -> frozenset[int | None]:
    return frozenset(statuses)


def raw_json(text: str) -> bytes:
    return post(b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + text.encode() + b"}]}")


def binary(values: bytes, size: int, shape: list[int] = [1], length: int | str | None = None) -> bytes:  # noqa: B006
    head = infer({"data": ..., "shape": shape, "parameters": {"binary_data_size": size}})
    return post(head + values, headers=f"Inference-Header-Content-Length: {len(head) if length is None else length}\r\n")


GOOD = post(json.dumps({"inputs": INPUTS}).encode())
BOMB = 200 * 1024 * 1024
DEFLATED = zlib.compressobj(9, zlib.DEFLATED, 15)
# ruff: noqa: E501  (the table has one probe a line)
PROBES = {
    # --- JSON ---------------------------------------------------------------------------------------------------------------
    "NaN": Probe(raw_json("[NaN]"), only(400)),
    "Infinity": Probe(raw_json("[Infinity]"), only(400)),
    "overflow of a float": Probe(post(infer({"data": [1e39]})), only(400)),
    "a number of 1000 digits": Probe(raw_json("[" + "9" * 1000 + "]"), only(400)),
    "null where none is allowed": Probe(post(json.dumps({"inputs": [INPUTS[0], {**INPUTS[1], "data": [None]}, INPUTS[2]]}).encode()), only(400)),
    "words as numbers": Probe(post(infer({"data": ["1"]})), only(400)),
    "ragged lists": Probe(post(infer({"data": [[1], [2, 3]]})), only(400)),
    "100,000 brackets": Probe(raw_json("[" * 100_000 + "]" * 100_000), only(400)),
    "cut off": Probe(post(infer()[:-5]), only(400)),
    "not UTF-8": Probe(post(infer().replace(b"UA", b"\xff\xfe")), only(400)),
    "NUL": Probe(post(b"\0" * 100), only(400)),
    "empty body": Probe(post(b""), only(400)),
    "a lone surrogate": Probe(post(infer().replace(b"UA", b"\\ud800")), only(400)),
    # --- shapes and inputs --------------------------------------------------------------------------------------------------
    "shape beyond memory": Probe(post(infer({"shape": [2**31 - 1, 2**31 - 1]})), only(400)),
    "shape beyond 64 bits": Probe(post(infer({"shape": [10**30]})), only(400)),
    "negative shape": Probe(post(infer({"shape": [-1]})), only(400)),
    "shape 0": Probe(post(infer({"shape": [0], "data": []})), only(400)),
    "no dimensions": Probe(post(infer({"shape": [], "data": [1.0]})), only(400)),
    "100 dimensions": Probe(post(infer({"shape": [1] * 100})), only(400)),
    "2 million values for one": Probe(raw_json("[" + "1," * 1_999_999 + "1]"), only(400)),
    "1.3 million objects for one": Probe(raw_json("[" + "{}," * 1_300_000 + "{}]"), only(400)),
    "300,000 parameters": Probe(post(b'{"inputs":[],"parameters":{' + b",".join(b'"%d":1' % n for n in range(300_000)) + b"}}"), only(400)),
    "an input twice": Probe(post(json.dumps({"inputs": [*INPUTS, INPUTS[0]]}).encode()), only(400)),
    "an input is missing": Probe(post(json.dumps({"inputs": INPUTS[:2]}).encode()), only(400)),
    "an unknown input": Probe(post(json.dumps({"inputs": [*INPUTS, {**INPUTS[0], "name": "z"}]}).encode()), only(400)),
    "an unknown type": Probe(post(infer({"datatype": "FLOAT128"})), only(400)),
    "an unknown output": Probe(post(infer(outputs=[{"name": "o" * 100_000}])), only(400)),
    "10,000 outputs": Probe(post(infer(outputs=[{"name": "probabilities"}] * 10_000)), only(400)),
    "too many rows": Probe(post(json.dumps({"inputs": [{**one, "shape": [5000], "data": one["data"] * 5000} for one in INPUTS]}).encode()), only(413)),
    # --- binary tensors -----------------------------------------------------------------------------------------------------
    "NaN in a binary tensor": Probe(post((head := json.dumps({"inputs": [INPUTS[0], {"name": "y", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}, INPUTS[2]]}).encode()) + struct.pack("<f", float("nan")), headers=f"Inference-Header-Content-Length: {len(head)}\r\n"), only(400)),
    "binary size too large": Probe(binary(b"\0" * 4, 10**12), only(400)),
    "binary size too small": Probe(binary(b"\0" * 8, 4), only(400)),
    "binary size negative": Probe(binary(b"\0" * 4, -4), only(400)),
    "binary shape lies": Probe(binary(b"\0" * 4, 4, [1000]), only(400)),
    "header length too large": Probe(binary(b"\0" * 4, 4, length=10**9), only(400)),
    "header length negative": Probe(binary(b"\0" * 4, 4, length=-1), only(400)),
    "header length in words": Probe(binary(b"\0" * 4, 4, length="ten"), only(400)),
    "header length twice": Probe(post(infer(), headers="Inference-Header-Content-Length: 5\r\nInference-Header-Content-Length: 9\r\n"), only(400)),
    "a string that lies about its length": Probe(post((other := json.dumps({"inputs": [*INPUTS[:2], {"name": "carrier", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}]}).encode()) + b"\xff\xff\xff\x7fUA", headers=f"Inference-Header-Content-Length: {len(other)}\r\n"), only(400)),
    # --- sizes and encodings ------------------------------------------------------------------------------------------------
    "64 MiB declared": Probe(post(b"a" * 100_000, length=64 * 1024 * 1024), only(413)),
    "64 MiB in chunks": Probe(chunked(b"[" + b"1," * (32 * 1024 * 1024), 1024 * 1024), only(413), 3.0),
    "300,000 chunks of a byte": Probe(chunked(b" " * 300_000, 1), only(400), 3.0),
    "gzip bomb": Probe(post(gzip.compress(b" " * BOMB), headers="Content-Encoding: gzip\r\n"), only(413)),
    "deflate bomb": Probe(post(DEFLATED.compress(b" " * BOMB) + DEFLATED.flush(), headers="Content-Encoding: deflate\r\n"), only(413)),
    "gzip cut off": Probe(post(gzip.compress(infer())[:-4], headers="Content-Encoding: gzip\r\n"), only(400)),
    "no gzip at all": Probe(post(infer(), headers="Content-Encoding: gzip\r\n"), only(400)),
    "gzip twice": Probe(post(gzip.compress(gzip.compress(infer())), headers="Content-Encoding: gzip, gzip\r\n"), only(415)),
    "an unknown encoding": Probe(post(infer(), headers="Content-Encoding: zstd\r\n"), only(415)),
    "1 MiB header": Probe(post(infer(), headers=f"X-Long: {'a' * 1024 * 1024}\r\n"), only(431)),
    "100,000 headers": Probe(post(infer(), headers="".join(f"X-{n}: 1\r\n" for n in range(100_000))), only(431)),
    "long address": Probe(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", only(431)),
    # --- HTTP itself --------------------------------------------------------------------------------------------------------
    "length and chunks": Probe(b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v2 HTTP/1.1\r\nHost: x\r\n\r\n", only(400)),
    "two lengths": Probe(b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", only(400)),
    "negative length": Probe(b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", only(400)),
    "bad chunk size": Probe(b"POST /v2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", only(400)),
    "huge chunk size": Probe(b"POST /v2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", only(400)),
    "an endless chunk extension": Probe(b"POST /v2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 100_000, only(400, 408, 431), 2.5),
    "chunked, twice": Probe(b"POST /v2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", only(400)),
    "HTTP/0.9": Probe(b"GET /v2\r\n\r\n", only(400, None)),
    "HTTP/2 preface": Probe(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", only(400, None)),
    "TLS on a plain port": Probe(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, only(400, None)),
    "a tunnel": Probe(b"CONNECT /v2 HTTP/1.1\r\nHost: x\r\n\r\n", only(405)),
    "a tunnel behind a refused request": Probe(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\nCONNECT /v2 HTTP/1.1\r\nHost: x\r\n\r\n", only(431)),
    "leave to send 100 MB": Probe(b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100000000\r\n\r\n", only(413)),
    "HTTP/1.0": Probe(b"POST /v2/models/toy/infer HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", only(400)),
    "an unknown method": Probe(b"BREW /v2 HTTP/1.1\r\nHost: x\r\n\r\n", only(400, 405)),
    "a wrong method": Probe(b"DELETE /v2/models/toy/infer HTTP/1.1\r\nHost: x\r\n\r\n", only(405)),
    "a space in the address": Probe(b"GET /v2 /x HTTP/1.1\r\nHost: x\r\n\r\n", only(400)),
    "a header without a colon": Probe(b"GET /v2 HTTP/1.1\r\nHost x\r\n\r\n", only(400)),
    "a folded header": Probe(b"GET /v2/none HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", only(400, 404)),
    "garbage behind a request": Probe(GOOD + b"\0\xff\r\n\r\n", only(200, 400)),
    "websocket": Probe(b"GET /v2/none HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", only(404)),
    # --- addresses ----------------------------------------------------------------------------------------------------------
    "path traversal": Probe(b"GET /v2/models/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", only(404)),
    "encoded traversal": Probe(b"GET /v2/models/%2e%2e%2f%2e%2e%2fetc HTTP/1.1\r\nHost: x\r\n\r\n", only(404)),
    "NUL in the address": Probe(b"GET /v2/models/a%00b HTTP/1.1\r\nHost: x\r\n\r\n", only(404)),
    "bad UTF-8 in the address": Probe(b"GET /v2/models/%ff HTTP/1.1\r\nHost: x\r\n\r\n", only(400)),
    "unload without a key": Probe(post(b"{}", "/v2/repository/models/toy/unload"), only(404)),
    "an unknown model": Probe(post(infer(), "/v2/models/none/infer"), only(404)),
    # --- labels -------------------------------------------------------------------------------------------------------------
    "labels and receipts of different length": Probe(post(b'{"receipts":["a"],"labels":[1,2]}', "/v2/models/toy/feedback"), only(400)),
    "labels without receipts": Probe(post(b'{"labels":[1,2]}', "/v2/models/toy/feedback"), only(400)),
    "labels that are no list": Probe(post(b'{"receipts":{},"labels":1}', "/v2/models/toy/feedback"), only(400)),
    "an upload of an unknown type": Probe(post(b"a,b", "/v2/models/toy/labels", "Content-Type: application/pdf\r\n"), only(415)),
    "an upload with unknown columns": Probe(post(b"a;b\n1;2\n", "/v2/models/toy/labels", "Content-Type: text/csv\r\n"), only(400)),
    "600,000 forged labels": Probe(post(b'{"receipts":[' + b'"a",' * 599_999 + b'"a"],"labels":[' + b"1," * 599_999 + b"1]}", "/v2/models/toy/feedback"), only(413)),
    "400,000 unknown request ids": Probe(post(b'{"request_ids":[' + b'"abc",' * 399_999 + b'"abc"],"labels":[' + b"1," * 399_999 + b"1]}", "/v2/models/toy/feedback"), only(413)),
    "a million bad lines": Probe(post(b"receipt,label\n" + b"a,b\n" * 1_000_000, "/v2/models/toy/labels", "Content-Type: text/csv\r\n"), only(413)),
    "a million events that are none": Probe(post(b"[" + b"{}," * 1_000_000 + b"{}]", "/v1/ingest", "Content-Type: application/cloudevents-batch+json\r\n"), only(400)),
    "an event that is none": Probe(post(b"{}", "/v1/ingest"), only(400)),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("probes")
    made = Process(folder, **LIMITS)
    made.start()
    made.deploy(write_model(folder, "v1", 0.0), 1)
    wait_until(made.is_ready)
    for _ in range(200):
        made.infer()
    yield made
    made.close()


@contextlib.contextmanager
def neighbour(server: Process) -> Iterator[None]:
    """Another client, who asks all the while; fails where an answer took longer than a second or was none."""
    is_over = threading.Event()
    slow: list[object] = []

    def ask() -> None:
        while not is_over.is_set():
            started = time.monotonic()
            status, _ = server.infer()
            if status != 200 or time.monotonic() - started > ANSWER_SECONDS:
                slow.append((status, time.monotonic() - started))
            is_over.wait(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        is_over.set()
        asking.join()
    assert not slow


def exchange(server: Process, data: bytes, seconds: float) -> tuple[list[int | None], bytes, float]:
    """Statuses that came back (None: none did), all bytes, and when the first answer was there."""
    got, started, first = b"", time.monotonic(), 0.0
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        sender = threading.Thread(target=lambda: send(connection, data))
        sender.start()
        connection.settimeout(seconds + 4)
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                first = first or time.monotonic() - started
                got += part
                if b"\r\n\r\n" in got and time.monotonic() - started < seconds:
                    connection.settimeout(0.2)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        sender.join()
    statuses: list[int | None] = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]
    return statuses or [None], got, first


def send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(data)


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_is_a_client_error_within_a_second_and_nobody_else_notices(server, name):
    probe, before = PROBES[name], server.rss_mib()
    with neighbour(server):
        statuses, got, seconds = exchange(server, probe.data, probe.seconds)
    assert set(statuses) <= probe.statuses, got[:500]
    assert seconds <= probe.seconds
    assert server.rss_mib() - before < MAX_GROWTH_MIB
    if statuses[-1] in CLIENT:
        assert len(json.loads(got.rpartition(b"\r\n\r\n")[2])["error"]) > 10


@pytest.mark.parametrize("start", [b"POST /v2/models/toy/infer HTTP/1.1\r\nHo", post(b"{", length=100)], ids=["head", "body"])
def test_300_half_open_requests_are_closed_in_time_and_nobody_else_notices(server, start):
    before = server.rss_mib()
    with neighbour(server), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5)) for _ in range(300)]
        for client in clients:
            client.sendall(start)
        for client in clients:
            client.settimeout(5)
            assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert server.rss_mib() - before < MAX_GROWTH_MIB


def test_a_client_that_never_reads_is_hung_up_on_and_fills_no_memory(server):
    before = server.rss_mib()
    with neighbour(server), socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0.5)
        with contextlib.suppress(OSError):
            for _ in range(2_000):
                client.sendall(GOOD * 50)
        client.settimeout(10)
        with contextlib.suppress(ConnectionError):
            while client.recv(1_000_000):
                pass
    assert server.rss_mib() - before < MAX_GROWTH_MIB


def test_more_connections_than_there_is_room_for_are_told_so_and_the_others_go_on(server):
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5)) for _ in range(450)]
        last = clients[-1]
        last.settimeout(5)
        assert last.recv(1000).startswith(b"HTTP/1.1 503 ")
        first.settimeout(5)
        first.sendall(GOOD)
        assert first.recv(10_000).startswith(b"HTTP/1.1 200 ")


def test_connections_leave_files_for_the_bus_and_for_new_clients_where_the_limit_of_files_is_low(tmp_path):
    low, high = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = Process(tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, high))
    try:
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, high))
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        for _ in range(400):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5))
        server.deploy(write_model(tmp_path, "v1", 0.0), 1)
        wait_until(server.is_ready)
        assert server.infer()[0] == 200


def test_half_open_tls_handshakes_are_closed_in_time(tmp_path):
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=x", "-keyout", str(key), "-out", str(chain)],
        check=True, capture_output=True,
    )  # fmt: skip
    server = Process(tmp_path, tls_certificate_file=str(chain), tls_key_file=str(key), **LIMITS)
    server.start(wait=False)
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        wait_until(lambda: server.get("/metrics", port=server.admin_port)[0] == 200)
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5)) for _ in range(300)]
        for client in clients:
            client.sendall(b"\x16\x03\x01\x02\x00\x01")
        for client in clients:
            client.settimeout(5)
            with contextlib.suppress(ConnectionError):
                assert client.recv(1000) == b""


def test_after_all_of_it_the_server_has_had_no_fault_and_is_as_small_as_before(server):
    assert server.infer()[0] == 200
    assert server.metric('clipdrift_serving_requests_total{code="500"') == 0
    assert server.process.poll() is None
