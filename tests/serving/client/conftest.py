"""Servers for the client: the real application on a socket of this process, and one that answers by a script."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from toy_service import Service

from clipdrift_serving.rest.gate import Gate, Limits
from clipdrift_serving.rest.listener import Listener, bound_socket


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    """Where the application of `service` listens; its loop runs in a thread."""
    loop = asyncio.new_event_loop()
    bound = bound_socket("127.0.0.1", 0)
    listener = Listener(Gate(service.app, Limits()), bound)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(listener.open(), loop).result(5)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    asyncio.run_coroutine_threadsafe(listener.close(1.0), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class ScriptedServer:
    """Answers each request with the next line of its script; remembers what it was asked.

    A line is a status with headers and a body, or the word "hang up": the connection ends without an answer.
    """

    def __init__(self) -> None:
        self.script: list = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                line = outer.script.pop(0)
                if line == "hang up":
                    self.close_connection = True
                    return
                status, headers, answer = line
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    made = ScriptedServer()
    yield made
    made.close()
