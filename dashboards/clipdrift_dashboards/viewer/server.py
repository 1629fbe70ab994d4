"""Serves the dashboards to a browser of this machine."""

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from clipdrift_contract.errors import ClipdriftError
from clipdrift_dashboards.build import boards_of
from clipdrift_dashboards.links import Links, uid
from clipdrift_dashboards.viewer.asking import Prometheus, Span
from clipdrift_dashboards.viewer.page import Sight, page

OF_FLEET = f"/d/{uid('fleet')}"


def viewer(prometheus: Prometheus, span: Span, *, port: int, links: Links | None = None) -> ThreadingHTTPServer:
    """A server of all dashboards on 127.0.0.1; the caller starts it (`serve_forever`) and ends it.

    A page is `/d/UID?var-model=M&from=SECONDS&to=SECONDS&open=1&theme=light`; all of it may be left out.

    Args:
        prometheus: What is asked.
        span: The time that is shown unless a page's address says another.
        port: 0 for any that is free.
        links: Where links out of the dashboards lead.
    """
    boards = boards_of(links or Links())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = urlsplit(self.path)
            asked = dict(parse_qsl(place.query))
            board = boards.get(place.path.removeprefix("/d/"))
            if place.path == "/":
                self.send_response(302)
                self.send_header("Location", OF_FLEET)
                self.end_headers()
            elif board is None:
                self._answer(404, "<p>There is no such dashboard.</p>")
            else:
                self._show(board, asked)

        def _show(self, board: Mapping[str, Any], asked: Mapping[str, str]) -> None:
            try:
                self._answer(200, page(board, prometheus, sight_of(asked, span, boards)))
            except ValueError as error:
                self._answer(400, f"<p>{error}</p>")
            except ClipdriftError as error:
                self._answer(502, f"<p>{error}</p>")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
            """Nothing: a look at a page is no news."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def sight_of(asked: Mapping[str, str], span: Span, boards: Mapping[str, Mapping[str, Any]] | None = None) -> Sight:
    """What a page's address asks to see.

    Raises:
        ValueError: `from` and `to` are no numbers, or in the wrong order.
    """
    start, end = float(asked.get("from", span.start)), float(asked.get("to", span.end))
    if not start < end:
        raise ValueError(f"from must be before to, got {start!r} and {end!r}")
    return Sight(
        span=Span(start=start, end=end, scrape_seconds=span.scrape_seconds),
        chosen={name.removeprefix("var-"): value for name, value in asked.items() if name.startswith("var-")},
        is_open=asked.get("open") == "1",
        theme="light" if asked.get("theme") == "light" else "dark",
        boards=[(one, str(board["title"]).removeprefix("Clipdrift / ")) for one, board in (boards or {}).items()],
    )
