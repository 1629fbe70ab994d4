"""The dead man's switch."""

import logging
import signal
import threading
from typing import Annotated

import httpx
import typer
from rich.markup import escape

from clipdrift_contract.clock import SystemClock
from clipdrift_contract.errors import ConfigError
from clipdrift_deploy import watchdog as switch
from clipdrift_deploy.cli.app import app, examples, say
from clipdrift_deploy.moments import parse_duration

_TIMEOUT_SECONDS = 10.0
_log = logging.getLogger(__name__)


@app.command(epilog=examples("watchdog --to https://hooks.slack.com/services/...", "watchdog --within 10m --port 9099"))
def watchdog(
    to: Annotated[
        str,
        typer.Option(
            "--to",
            envvar="WATCHDOG_URL",
            help="Address that gets JSON with a `text`, as Slack's and "
            "Mattermost's incoming webhooks take it. Without: it is only logged, and GET / says 503.",
        ),
    ] = "",
    within: Annotated[str, typer.Option(help="How long silence is no news, such as 5m.")] = "5m",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 9099,
) -> None:
    """Be told when alerts no longer reach you: hears the alert that always fires, and tells when it stops.

    Let Alertmanager's receiver `dead-mans-switch` post here. Run it on another machine than Prometheus and Alertmanager: what
    ends with them tells nothing. A service such as healthchecks.io does the same. Runs until it is told to end.
    """  # fmt: skip
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the address is a secret
    clock, stop = SystemClock(), threading.Event()
    kept = switch.Switch(parse_duration(within) / 1000, clock)
    try:
        server = switch.listen(host, port, kept)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror}): choose another --port") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    say(escape(f"waiting for {switch.ALERT} on http://{host}:{port}/, silent at most {within}"))
    switch.watch(kept, lambda words: _tell(to, words), stop)
    server.shutdown()


def _tell(to: str, words: str) -> bool:
    _log.warning(words)
    if not to:
        return True
    try:
        answer = httpx.post(to, json={"text": words}, timeout=_TIMEOUT_SECONDS)
    except httpx.HTTPError as error:
        _log.error("nobody was told: %s", type(error).__name__)
        return False
    if not answer.is_success:
        _log.error("nobody was told: the address answers %d", answer.status_code)
    return answer.is_success
