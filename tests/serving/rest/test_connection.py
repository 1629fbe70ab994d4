"""The connection, over a socket, as clients misuse it."""

import asyncio
import contextlib
import gzip
import json
import re

import pytest

from clipdrift_serving.rest.gate import Gate, Limits
from clipdrift_serving.rest.http import Response
from clipdrift_serving.rest.listener import Listener, bound_socket

_GET = b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n"
_ENOUGH = 4 * 1024 * 1024


def _echo(request, reply):
    """Answers with what came."""
    reply(Response(200, json.dumps([request.method, request.path, request.body.decode()]).encode()))


@contextlib.asynccontextmanager
async def _listening(app=_echo, **limits):
    """A gate with its address."""
    gate = Gate(app, Limits(**{"max_body_bytes": 8192, **limits}))
    bound = bound_socket("127.0.0.1", 0)
    listener = Listener(gate, bound)
    await listener.open()
    try:
        yield gate, bound.getsockname()
    finally:
        await listener.close(0.0)


@contextlib.asynccontextmanager
async def _connected(app=_echo, **limits):
    """A client's reader and writer, and the server's end."""
    async with _listening(app, **limits) as (gate, address):
        reader, writer = await asyncio.open_connection(*address)
        try:
            yield reader, writer, gate
        finally:
            writer.close()


async def _answers(reader) -> tuple[list[int], bytes]:
    """Statuses of all answers until the server hangs up, and the last body."""
    got = await asyncio.wait_for(reader.read(), 10)
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d{3}) ", got)], got.rpartition(b"\r\n\r\n")[2]


def _exchange(*pieces: bytes, app=_echo, **limits) -> tuple[list[int], bytes]:
    async def talk():
        async with _connected(app, **limits) as (reader, writer, _):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            return await _answers(reader)

    return asyncio.run(talk())


@pytest.mark.parametrize(
    "start",
    [
        b"GET /v2 HTTP/1.1\r\n",  # many headers
        b"GET /v2 HTTP/1.1\r\nx: ",  # one without an end
        b"GET /",  # an address without an end
        b"POST /v2 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ",  # a trailer without an end
    ],
)
def test_a_head_that_does_not_end_is_refused_long_before_it_fills_the_memory(start):
    async def flood() -> int:
        async with _connected() as (reader, writer, _):
            writer.write(start)
            answer = asyncio.create_task(reader.read())
            sent, filler = 0, b"y" * 8190 + (b"\r\n" if start.endswith(b"1.1\r\n") else b"yy")
            with contextlib.suppress(ConnectionError):
                while sent < _ENOUGH and not answer.done():
                    writer.write(b"x: " * start.endswith(b"1.1\r\n") + filler)
                    await writer.drain()
                    sent += len(filler)
                    await asyncio.sleep(0)
            assert (await answer).startswith(b"HTTP/1.1 431 ")
            return sent

    assert asyncio.run(flood()) < _ENOUGH


def test_an_address_or_a_header_that_is_too_long_is_answered_with_431_and_the_limit():
    for head in (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"a" * 20_000 + b"\r\n\r\n"):
        statuses, body = _exchange(head)
        assert statuses == [431]
        assert "16384" in json.loads(body)["error"]


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"GET /v2 /x HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_so_as_any_other_error(wrong):
    statuses, body = _exchange(wrong)
    assert statuses == [400]
    assert "no HTTP/1.1 request" in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (b"GET /v2 HTTP/1.1\r\nho", "head"),
        (_GET + b"GET /v2 HTTP/1.1\r\nho", "head"),
        (b"POST /v2 HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc", "body"),
    ],
)
def test_a_head_or_a_body_that_does_not_come_is_answered_with_408(start, word):
    async def stall():
        async with _connected(head_seconds=0.01, body_seconds=0.01) as (reader, writer, gate):
            writer.write(start)
            answers = await _answers(reader)
            assert gate.num_refused["deadline"] == 1
            return answers

    statuses, body = asyncio.run(stall())
    assert statuses[-1] == 408
    assert f"the {word} did not arrive" in json.loads(body)["error"]


def test_a_client_that_says_nothing_is_hung_up_on():
    async def wait():
        async with _connected(idle_seconds=0.01) as (reader, _, _):
            return await asyncio.wait_for(reader.read(), 10)

    assert asyncio.run(wait()) == b""


def test_an_offer_to_change_the_protocol_is_passed_over_and_the_body_is_read():
    head = b"POST /v2 HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    statuses, body = _exchange(head + b"content-length: 5\r\n\r\nhello")
    assert (statuses, json.loads(body)) == ([200], ["POST", "/v2", "hello"])


def test_a_body_that_holds_the_word_upgrade_stays_as_it_is():
    content = b"a\r\nupgrade: h2c\r\n\r\nb"
    head = b"POST /v2 HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(content)
    assert json.loads(_exchange(head + content)[1]) == ["POST", "/v2", content.decode()]
    assert json.loads(_exchange(head, content)[1]) == ["POST", "/v2", content.decode()]


def test_requests_in_one_go_are_answered_in_their_order():
    statuses, _ = _exchange(_GET * 500)
    assert statuses == [200] * 500


def test_answers_go_out_in_the_order_of_their_requests_though_a_later_one_is_ready_first():
    held = []

    def app(request, reply):
        held.append((reply, Response(200, request.path.encode())))
        if len(held) == 3:
            for waiting, response in reversed(held):
                waiting(response)

    async def ask():
        async with _connected(app) as (reader, writer, gate):
            writer.write(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(3)))
            got = await asyncio.wait_for(reader.readuntil(b"/2"), 10)
            return re.findall(rb"\r\n\r\n(/\d)", got), gate.num_in_flight

    assert asyncio.run(ask()) == ([b"/0", b"/1", b"/2"], 0)


def test_a_client_that_only_asks_and_never_reads_is_not_read_on():
    num_asked = 0

    def app(request, reply):
        nonlocal num_asked
        num_asked += 1
        _echo(request, reply)

    async def ask() -> int:
        async with _connected(app) as (_, writer, _):
            for _ in range(400):
                writer.write(_GET * 1000)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(writer.drain(), 0.01)
            writer.transport.abort()
            return num_asked

    assert asyncio.run(ask()) < 200_000  # of 400,000: what the sockets hold, and no more


def test_a_body_beyond_the_limit_is_refused_before_it_is_read_and_the_answer_arrives():
    for head in (b"content-length: 1000000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n4000\r\n" + b"a" * 0x4000):
        statuses, body = _exchange(b"POST /v2 HTTP/1.1\r\n" + head, b"a" * 100_000)
        assert statuses == [413]
        assert "8192" in json.loads(body)["error"]


def test_a_body_in_too_many_chunks_is_refused():
    head = b"POST /v2 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    assert _exchange(head + b"1\r\na\r\n" * 20 + b"0\r\n\r\n", max_chunks=30)[0] == [200]
    assert _exchange(head + b"1\r\na\r\n" * 40 + b"0\r\n\r\n", max_chunks=30)[0] == [400]


def test_whoever_comes_when_all_places_are_taken_is_told_to_come_again():
    async def crowd():
        async with _listening(max_connections=2) as (gate, address):
            streams = [await asyncio.open_connection(*address) for _ in range(3)]
            answer = await asyncio.wait_for(streams[2][0].read(), 10)
            streams[0][1].write(_GET)
            served = await asyncio.wait_for(streams[0][0].readuntil(b"]"), 10)
            for _, writer in streams:
                writer.close()
            return answer, served, gate.num_refused["connections"]

    answer, served, num_refused = asyncio.run(crowd())
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer
    assert served.startswith(b"HTTP/1.1 200 ")
    assert num_refused == 1


def test_requests_beyond_those_that_may_wait_are_refused_and_the_connection_goes_on():
    held = []

    async def crowd():
        async with _connected(lambda request, reply: held.append(reply), max_in_flight=2) as (reader, writer, gate):
            post = b"POST /v2 HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello"
            writer.write(post * 3)
            while gate.num_refused["in_flight"] < 1:
                await asyncio.sleep(0)
            for reply in held:
                reply(Response(200, b"late"))
            got = await asyncio.wait_for(reader.readuntil(b"try again"), 10)
            return [int(status) for status in re.findall(rb"HTTP/1.1 (\d{3}) ", got)]

    assert asyncio.run(crowd()) == [200, 200, 503]


def test_what_the_application_breaks_is_a_500_for_its_own_client_only():
    def app(request, reply):
        raise ZeroDivisionError

    statuses, body = _exchange(_GET * 2, app=app)
    assert statuses == [500, 500]
    assert json.loads(body) == {"error": "a fault inside the server; it is in its log"}


def test_a_long_answer_is_compressed_for_whoever_asks_for_it():
    async def ask():
        async with _connected(lambda request, reply: reply(Response(200, b"a" * 10_000))) as (reader, writer, _):
            writer.write(b"GET /v2 HTTP/1.1\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n")
            return await asyncio.wait_for(reader.read(), 10)

    head, _, body = asyncio.run(ask()).partition(b"\r\n\r\n")
    assert b"content-encoding: gzip" in head
    assert gzip.decompress(body) == b"a" * 10_000


def test_a_drain_answers_what_has_begun_and_takes_nothing_more():
    held = []

    async def drain():
        gate = Gate(lambda request, reply: held.append(reply), Limits())
        bound = bound_socket("127.0.0.1", 0)
        listener = Listener(gate, bound)
        await listener.open()
        address = bound.getsockname()
        reader, writer = await asyncio.open_connection(*address)
        idle_reader, idle_writer = await asyncio.open_connection(*address)
        writer.write(_GET)
        while not held:
            await asyncio.sleep(0)
        closing = asyncio.create_task(listener.close(10.0))
        assert await asyncio.wait_for(idle_reader.read(), 10) == b""
        held[0](Response(200, b"done"))
        got = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        idle_writer.close()
        await asyncio.wait_for(closing, 10)
        return got

    got = asyncio.run(drain())
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.endswith(b"done")


@pytest.mark.parametrize("refused", ["gzip;q=0", "gzip; q=0.0, deflate;q=0.000", "identity", ""])
def test_whoever_refuses_compression_in_any_form_gets_none(refused):
    async def ask():
        async with _connected(lambda request, reply: reply(Response(200, b"a" * 10_000))) as (reader, writer, _):
            writer.write(f"GET /v2 HTTP/1.1\r\naccept-encoding: {refused}\r\nconnection: close\r\n\r\n".encode())
            return await asyncio.wait_for(reader.read(), 10)

    assert asyncio.run(ask()).endswith(b"a" * 10_000)


def test_leave_to_send_a_body_never_comes_between_the_answers_to_earlier_requests():
    held = []

    async def ask():
        async with _connected(lambda request, reply: held.append(reply)) as (reader, writer, _):
            writer.write(_GET + b"POST /v2 HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
            while not held:
                await asyncio.sleep(0)
            held[0](Response(200, b"first"))
            writer.write(b"hello")
            while len(held) < 2:
                await asyncio.sleep(0)
            held[1](Response(200, b"second"))
            return await asyncio.wait_for(reader.readuntil(b"second"), 10)

    assert re.findall(rb"HTTP/1.1 (\d{3}) ", asyncio.run(ask())) == [b"200", b"200"]
