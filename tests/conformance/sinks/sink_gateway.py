"""A Pushgateway that is stricter than the real one: it parses what it is given, and refuses what the real one would."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from prometheus_client.parser import text_string_to_metric_families


class Gateway:
    """Groups by their labels; each holds the samples of the last push. `port` 0: any free one."""

    def __init__(self, port: int = 0) -> None:
        self.groups: dict[tuple[tuple[str, str], ...], dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        self.num_pushes = 0
        self.hangs = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                if owner.hangs.is_set():
                    owner.released.wait(30)
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._answer(lambda: owner.put(self._group(), body))

            def do_DELETE(self) -> None:
                self._answer(lambda: owner.groups.pop(self._group()))

            def _group(self) -> tuple[tuple[str, str], ...]:
                _, start, *parts = unquote(self.path).split("/")
                assert start == "metrics", self.path
                assert parts[0] == "job", "the job comes first"
                assert len(parts) % 2 == 0, self.path
                return tuple(zip(parts[::2], parts[1::2], strict=True))

            def _answer(self, act) -> None:
                try:
                    act()
                except Exception as error:  # noqa: BLE001  the answer says what was wrong
                    self.send_error(400, repr(error).replace("\n", " "))
                    return
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.address = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def put(self, group: tuple[tuple[str, str], ...], body: str) -> None:
        samples = {}
        for family in text_string_to_metric_families(body):
            for sample in family.samples:
                assert sample.timestamp is None, "the Pushgateway refuses timestamps"
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in samples, f"{key} comes twice"
                assert sample.labels.get("model", dict(group)["model"]) == dict(group)["model"], "the group would overwrite it"
                samples[key] = sample.value
        self.groups[group] = samples
        self.num_pushes += 1

    def value(self, name: str) -> float:
        """Of the only sample with this name in the only group."""
        (samples,) = self.groups.values()
        (value,) = [value for (known, _), value in samples.items() if known == name]
        return value

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def gateway() -> Iterator[Gateway]:
    running = Gateway()
    try:
        yield running
    finally:
        running.stop()
