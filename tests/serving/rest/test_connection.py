"""The connection, over a socket, as clients misuse it."""

import asyncio
import contextlib
import json
import re

import pytest
import uvicorn
from uvicorn.server import ServerState

from clipdrift_serving.rest import connection
from clipdrift_serving.rest.connection import Connection
from clipdrift_serving.rest.http import Response, read_body, send

_GET = b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n"
_ENOUGH = 4 * 1024 * 1024


async def _echo(scope, receive, send_message):
    """Answers with what came."""
    body = await read_body(scope, receive, 1024)
    await send(Response(200, json.dumps([scope["method"], body.decode()]).encode()), send_message)


@contextlib.asynccontextmanager
async def _connected():
    """A client's reader and writer, and the server's end."""
    config = uvicorn.Config(_echo, http=Connection, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer, state
    finally:
        writer.close()
        server.close()


async def _answers(reader) -> tuple[list[int], bytes]:
    """Statuses of all answers until the server hangs up, and the last body."""
    got = await asyncio.wait_for(reader.read(), 10)
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d{3}) ", got)], got.rpartition(b"\r\n\r\n")[2]


def _exchange(*pieces: bytes) -> tuple[list[int], bytes]:
    async def talk():
        async with _connected() as (reader, writer, _):
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
            sent, filler = 0, b"y" * 8190 + (b"\r\n" if start.endswith(b"1.1\r\n") else b"yy")
            with contextlib.suppress(ConnectionError):
                while sent < _ENOUGH and not reader.at_eof():
                    writer.write(b"x: " * start.endswith(b"1.1\r\n") + filler)
                    await writer.drain()
                    sent += len(filler)
                    await asyncio.sleep(0)
            return sent

    assert asyncio.run(flood()) < _ENOUGH


def test_an_address_that_is_too_long_is_answered_with_431_and_the_limit():
    statuses, body = _exchange(b"GET /" + b"a" * 65_600 + b" HTTP/1.1\r\n\r\n")
    assert statuses == [431]
    assert "65535" in json.loads(body)["error"]


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


def test_a_head_that_does_not_come_is_answered_with_408(monkeypatch):
    monkeypatch.setattr(connection, "_HEAD_SECONDS", 0.01)

    async def stall():
        async with _connected() as (reader, writer, _):
            writer.write(b"GET /v2 HTTP/1.1\r\nho")
            return await _answers(reader)

    statuses, body = asyncio.run(stall())
    assert statuses == [408]
    assert "did not go on" in json.loads(body)["error"]


def test_an_offer_to_change_the_protocol_is_passed_over_and_the_body_is_read():
    head = b"POST /v2 HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    statuses, body = _exchange(head + b"content-length: 5\r\n\r\nhello")
    assert (statuses, json.loads(body)) == ([200], ["POST", "hello"])


def test_a_body_that_holds_the_word_upgrade_stays_as_it_is():
    content = b"a\r\nupgrade: h2c\r\n\r\nb"
    head = b"POST /v2 HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(content)
    assert json.loads(_exchange(head + content)[1]) == ["POST", content.decode()]
    assert json.loads(_exchange(head, content)[1]) == ["POST", content.decode()]


def test_requests_in_one_go_are_answered_in_their_order():
    statuses, _ = _exchange(_GET * 500)
    assert statuses == [200] * 500


def test_a_client_that_only_asks_and_never_reads_is_not_read_on():
    async def ask() -> int:
        async with _connected() as (_, writer, state):
            most = 0
            for _ in range(400):
                writer.write(_GET * 1000)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(writer.drain(), 0.01)
                most = max([most, *(len(one.pipeline) for one in state.connections)])
            writer.transport.abort()
            return most

    assert asyncio.run(ask()) < 20_000  # of 400,000: those of one read at most
