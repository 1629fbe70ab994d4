"""The admin listener: metrics, what is loaded, loading and unloading, flushing. Needs the bearer token (metrics as
configured)."""

import asyncio
import hmac
import re
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

from clipdrift_contract.errors import RetryableError
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.plane import DataPlane
from clipdrift_serving.recording.recorder import Recorder
from clipdrift_serving.recording.spool import Spool
from clipdrift_serving.rest.errors import error_body
from clipdrift_serving.rest.http import Receive, Response, Scope, Send, guarded, send, wrong_method

_MODEL_ACTION = re.compile(r"/v2/repository/models/([A-Za-z0-9_.-]{1,64})/(load|unload)")
_METHODS = {"/metrics": "GET", "/v1/models": "GET", "/v2/repository/index": "POST", "/v1/recording/flush": "POST"}
_PATHS = f"there are {', '.join(_METHODS)} and /v2/repository/models/{{name}}/load or /unload"
_FLUSH_SECONDS = 30.0


class AdminApp:
    """A raw ASGI application on a listener of its own."""

    def __init__(self, config: ServingConfig, plane: DataPlane, recorder: Recorder, spool: Spool, metrics: MetricSet) -> None:
        self._config = config
        self._plane = plane
        self._recorder = recorder
        self._spool = spool
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send_message: Send) -> None:
        if scope["type"] == "http":
            await send(await guarded(lambda: self._answer(scope)), send_message)

    async def _answer(self, scope: Scope) -> Response:
        path, method = scope["path"], scope["method"]
        if path != "/metrics" or self._config.metrics_need_token:
            self._check_token(scope)
        action = _MODEL_ACTION.fullmatch(path)
        wanted = _METHODS.get(path, "POST" if action is not None else None)
        if wanted is None:
            raise RequestError("not_found", f"there is nothing at {path[:200]}; {_PATHS}")
        if method != wanted and (wanted, method) != ("GET", "HEAD"):
            raise wrong_method(scope, "GET, HEAD" if wanted == "GET" else wanted)
        if action is not None:
            return self._change(*action.groups())
        if path == "/v1/recording/flush":
            return await self._flush()
        return self._told(path)

    def _told(self, path: str) -> Response:
        if path == "/metrics":
            return Response(200, self._metrics.exposition(), ((b"content-type", CONTENT_TYPE_LATEST.encode()),))
        if path == "/v1/models":
            return Response(200, orjson.dumps(self._models()))
        return Response(200, orjson.dumps(self._index()))

    def _check_token(self, scope: Scope) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        if not self._config.admin_token or not hmac.compare_digest(given, f"Bearer {self._config.admin_token}".encode()):
            raise RequestError("unauthorized", "this needs the header Authorization: Bearer <admin token>")

    async def _flush(self) -> Response:
        self._recorder.flush()
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._spool.drain, _FLUSH_SECONDS)
        except RetryableError as error:
            return Response(503, error_body(str(error)))
        return Response(200, b'{"flushed":true}')

    def _index(self) -> list[dict[str, Any]]:
        listed = []
        for name in self._plane.repository.names():
            versions = self._plane.repository.get(name).versions()
            listed += [{"name": name, "version": model.version, "state": "READY", "reason": ""} for model in versions]
        return listed

    def _models(self) -> dict[str, Any]:
        return {name: self._describe(name) for name in self._plane.repository.names()}

    def _describe(self, name: str) -> dict[str, Any]:
        serving = self._plane.repository.get(name)
        live = self._plane.live.get(name, {})
        num_labels = live.get("labels", 0)
        return {
            "generation": serving.generation,
            "version": serving.champion.version,
            "previous": serving.previous.version if serving.previous else None,
            "canary": serving.canary.version if serving.canary else None,
            **live,
            "live_accuracy": live.get("correct", 0) / num_labels if num_labels else None,
        }

    def _change(self, model: str, action: str) -> Response:
        if action == "unload":
            self._plane.repository.unload(model)
        elif self._plane.repository.load(model) == "refused":
            raise RequestError("bad_input", f"the deployment of {model!r} cannot be loaded; the reason is in the server's log")
        return Response(200, b"{}")
