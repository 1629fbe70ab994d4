"""The HTTP interface in front of a monitor in dialogue."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from dialogue import Dialogue

from clipdrift_monitor.api.access import Access
from clipdrift_monitor.api.app import Api
from clipdrift_monitor.api.exporter import Exporter
from clipdrift_monitor.api.jobs import Jobs
from clipdrift_monitor.api.pages import Pages
from clipdrift_monitor.api.reader import Reader
from clipdrift_monitor.api.retrain_reader import RetrainReader

TOKEN = "the-api-token"
HOOK_SECRET = "the-secret-of-hooks"


class House:
    """A dialogue and its interface, asked as by a client; `auth` are the headers that commands need."""

    auth = {"authorization": f"Bearer {TOKEN}"}  # noqa: RUF012

    def __init__(
        self, dialogue: Dialogue, token: str = TOKEN, command_seconds: float = 20.0, access: Access | None = None
    ) -> None:
        self.dialogue = dialogue
        self.access = access or Access(token)
        self.command_seconds = command_seconds
        self.artifacts_dir = Path("models")
        self.open()

    def open(self) -> None:
        """In front of the dialogue's present life."""
        dialogue = self.dialogue
        self.reader = Reader(dialogue.config, dialogue.store, lambda: dialogue.engine.snapshot)
        self.exporter = Exporter(self.reader, dialogue.metrics, dialogue.config)
        self.pages = Pages(self.reader, dialogue.config)
        self.app = Api(
            dialogue.engine, self.reader, dialogue.store, self.exporter, self.pages,
            RetrainReader(dialogue.config, dialogue.store, self.reader),
            Jobs(dialogue.engine, 60, HOOK_SECRET, self.command_seconds), self.access, dialogue.config.evidence_dir,
            self.command_seconds, artifacts_dir=self.artifacts_dir,
        ).app()  # fmt: skip

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return self.ask("GET", path, params=parameters)

    def post(self, path: str, **named: Any) -> httpx.Response:
        return self.ask("POST", path, **named)

    def ask(self, method: str, path: str, **named: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://monitor") as client:
                return await client.request(method, path, **named)

        return asyncio.run(ask())

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The engine runs in its thread, as in the process; afterwards there is another life, turn by turn."""
        self.dialogue.restart()
        self.open()
        thread = threading.Thread(target=self.dialogue.engine.run)
        thread.start()
        while not self.dialogue.engine.snapshot.is_loaded:
            thread.join(0.005)
        try:
            yield
        finally:
            self.dialogue.engine.stop()
            thread.join(20)
            self.dialogue.restart()
            self.dialogue.go()
            self.open()
