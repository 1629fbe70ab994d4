"""The monitor's HTTP interface. Reading is free; commands need the bearer token."""

import asyncio
import hmac
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from clipdrift_contract.errors import ClipdriftError, RetryableError
from clipdrift_monitor.api.exporter import Exporter
from clipdrift_monitor.api.pages import Pages
from clipdrift_monitor.api.reader import Reader, UnknownModelError
from clipdrift_monitor.engine.commands import CommandError
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.engine import Engine
from clipdrift_monitor.store.store import Store

_COMMAND_SECONDS = 20.0
_MAX_BODY_BYTES = 64 * 1024
_MAX_LIMIT = 500
_END_OF_TIME_MS = 2**62
_MAX_ACTOR_CHARACTERS = 64
_MAX_REASON_CHARACTERS = 2_000
_MAX_FILE_NAME_BYTES = 255  # file systems refuse to look for longer ones
_BODY_SECONDS = 30.0
_SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_PAGE_HEADERS = {
    **_SECURITY_HEADERS,
    # the pages hold no script and load nothing; whatever else slips in does not run
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
}


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a command."""

    reason: str
    actor: str = "api"


class Api:
    """All routes.

    Args:
        engine: Carries out commands.
        reader: Answers questions.
        store: For the audit log.
        exporter: For Prometheus.
        pages: For people.
        token: That commands need.
        evidence_dir: Where evidence packs lie.
        command_seconds: How long a command may wait for the engine.
    """

    def __init__(
        self,
        engine: Engine,
        reader: Reader,
        store: Store,
        exporter: Exporter,
        pages: Pages,
        token: str,
        evidence_dir: Path,
        command_seconds: float = _COMMAND_SECONDS,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._store = store
        self._exporter = exporter
        self._pages = pages
        self._token = token
        self._evidence_dir = evidence_dir
        self._command_seconds = command_seconds

    def app(self) -> Starlette:
        """The ASGI application."""
        model = "/api/v1/models/{model}"
        routes = [
            Route("/", self._index),
            Route("/models/{model}", self._model_page),
            Route("/evidence/{name}", self._evidence),
            Route("/healthz", self._health),
            Route("/readyz", self._ready),
            Route("/metrics", self._metrics),
            Route("/api/v1/progress", self._progress),
            Route("/api/v1/models", self._models),
            Route(model, self._model),
            Route(model + "/accuracy", self._accuracy),
            Route(model + "/blocks", self._blocks),
            *(
                Route(f"{model}/{kind}", self._listed(kind))
                for kind in ("signals", "decisions", "deployments", "runs", "retrains")
            ),
            Route(model + "/rollback", self._rollback, methods=["POST"]),
            Route(model + "/retrain", self._retrain, methods=["POST"]),
            Route("/api/v1/audit/verify", self._verify_audit),
        ]
        return Starlette(
            routes=routes,
            exception_handlers={
                HTTPException: _on_http_error,
                UnknownModelError: _on_unknown_model,
                CommandError: _on_refusal,
                RetryableError: _on_outage,
                Exception: _on_fault,
            },
        )

    # --- pages ---

    def _index(self, request: Request) -> Response:
        return HTMLResponse(self._pages.index(), headers=_PAGE_HEADERS)

    def _model_page(self, request: Request) -> Response:
        return HTMLResponse(self._pages.model(request.path_params["model"]), headers=_PAGE_HEADERS)

    def _evidence(self, request: Request) -> Response:
        name = Path(request.path_params["name"]).name
        path = self._evidence_dir / name
        if path.suffix != ".html" or len(name.encode()) > _MAX_FILE_NAME_BYTES or not path.exists():
            raise HTTPException(404, "there is no such evidence; it may still be in the making")
        # its scripts draw charts; the sandbox gives them an origin of their own, so that they can ask nothing of this one
        headers = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox allow-scripts"}
        return FileResponse(path, media_type="text/html", headers=headers)

    # --- questions ---

    def _health(self, request: Request) -> Response:
        return _json({"status": "ok", "is_idle": self._reader.snapshot.is_idle})

    def _ready(self, request: Request) -> Response:
        snapshot = self._reader.snapshot
        if not snapshot.is_loaded or snapshot.waits_for:
            raise HTTPException(503, snapshot.waits_for or "the monitor is reading what it has saved")
        return _json({"status": "ok"})

    def _metrics(self, request: Request) -> Response:
        return Response(self._exporter.exposition(), media_type=CONTENT_TYPE_LATEST)

    def _progress(self, request: Request) -> Response:
        snapshot = self._reader.snapshot
        models = {
            name: {"num_predictions": state.num_predictions, "num_labels": state.num_labels}
            for name, state in snapshot.models.items()
        }
        return _json({"is_idle": snapshot.is_idle, "lag": snapshot.lag, "models": models})

    def _models(self, request: Request) -> Response:
        models = self._reader.snapshot.models
        return _json(
            {
                "items": [
                    {
                        "model": name,
                        "version": models[name].in_service.version if models[name].in_service else None,  # type: ignore[union-attr]
                        "state": models[name].word,
                    }
                    for name in sorted(models)
                ]
            }
        )

    def _model(self, request: Request) -> Response:
        return _json(self._reader.describe(request.path_params["model"]))

    def _accuracy(self, request: Request) -> Response:
        start_ms, end_ms = (
            _whole(request, "start_ms", 0, _END_OF_TIME_MS),
            _whole(request, "end_ms", _END_OF_TIME_MS, _END_OF_TIME_MS),
        )
        found = self._reader.accuracy(request.path_params["model"], start_ms, end_ms)
        return _json({"slices": [one._asdict() for one in found]})

    def _blocks(self, request: Request) -> Response:
        self._reader.state(request.path_params["model"])
        return _json({"items": self._reader.blocks(request.path_params["model"])})

    def _listed(self, kind: str) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            model = request.path_params["model"]
            self._reader.state(model)
            if kind == "retrains":
                return _json({"items": self._reader.retrains(model)})
            limit, offset = _whole(request, "limit", 50, _MAX_LIMIT), _whole(request, "offset", 0, 2**31)
            return _json({"items": getattr(self._reader, kind)(model, limit, offset)})

        return answer

    def _verify_audit(self, request: Request) -> Response:
        return _json(self._store.verify_audit())

    # --- commands ---

    async def _rollback(self, request: Request) -> Response:
        order, model = await self._order(request), request.path_params["model"]

        def change(draft: Draft) -> Mapping[str, Any]:
            deployment = self._engine.commands.roll_back(draft, model, order.reason, order.actor)
            return {"version": deployment.champion.version, "generation": deployment.generation}

        return _json(await self._carry_out(change))

    async def _retrain(self, request: Request) -> Response:
        order, model = await self._order(request), request.path_params["model"]

        def change(draft: Draft) -> Mapping[str, Any]:
            return {"key": self._engine.commands.order(draft, model, order.reason, order.actor).key}

        return _json(await self._carry_out(change), status=202)

    async def _order(self, request: Request) -> Order:
        given = request.headers.get("authorization", "")
        if not self._token or not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            raise HTTPException(401, "this needs the header Authorization: Bearer <api token>")
        self._reader.state(request.path_params["model"])
        body = await _body(request)
        try:
            order = msgspec.json.decode(body, type=Order)
        except msgspec.DecodeError as error:
            raise HTTPException(400, f'the body must be like {{"reason": "..."}}: {error}') from error
        _check(order)
        return order

    async def _carry_out(self, change: Callable[[Draft], Any]) -> Any:
        future: Future[Any] = self._engine.command(change)
        try:
            return await run_in_threadpool(future.result, self._command_seconds)
        except TimeoutError as error:
            late = f"the monitor did not come to it within {self._command_seconds:g} s"
            if future.cancel():
                raise HTTPException(503, f"{late}; nothing was done, try again") from error
            raise HTTPException(503, f"{late} and is still at it; look before you try again") from error


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > _MAX_BODY_BYTES:
                    raise HTTPException(413, f"a command has at most {_MAX_BODY_BYTES} bytes")
    except TimeoutError as error:
        raise HTTPException(408, f"the command did not arrive within {_BODY_SECONDS:g} s") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the client went away") from error
    return body


def _check(order: Order) -> None:
    """What is kept in the record must be readable there."""
    if not order.reason.strip():
        raise HTTPException(400, "a reason is needed: it is kept in the record")
    if len(order.reason) > _MAX_REASON_CHARACTERS or "\0" in order.reason:
        raise HTTPException(400, f"a reason has at most {_MAX_REASON_CHARACTERS} characters, none of them NUL")
    if not 0 < len(order.actor) <= _MAX_ACTOR_CHARACTERS or not order.actor.isprintable():
        raise HTTPException(400, f"actor must be 1 to {_MAX_ACTOR_CHARACTERS} printable characters, got {order.actor[:100]!r}")


def _whole(request: Request, name: str, default: int, at_most: int) -> int:
    text = request.query_params.get(name, str(default))
    try:
        value = int(text)
    except ValueError as error:
        raise HTTPException(400, f"{name} must be a whole number, got {text[:50]!r}") from error
    if not 0 <= value <= at_most:
        raise HTTPException(400, f"{name} must be in 0..{at_most}, got {value}")
    return value


def _json(value: Any, status: int = 200, headers: Mapping[str, str] = _SECURITY_HEADERS) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def _problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return _json({"error": message}, status, {**_SECURITY_HEADERS, **(headers or {})})


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    methods = (error.headers or {}).get("Allow")
    if methods is not None:  # the router's own words do not say what would do, and its list has no order
        allowed = ", ".join(sorted(methods.split(", ")))
        message = f"{request.url.path[:200]} is asked for with {allowed}, got {request.method}"
        return _problem(error.status_code, message, {"allow": allowed})
    if error.status_code == 404 and error.detail == HTTPStatus.NOT_FOUND.phrase:
        return _problem(404, f"there is nothing at {request.url.path[:200]}; begin at / or /api/v1/models")
    return _problem(error.status_code, error.detail)


def _on_unknown_model(request: Request, error: Exception) -> Response:
    return _problem(404, str(error))


def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, ClipdriftError)
    return _problem(409, str(error))


def _on_fault(request: Request, error: Exception) -> Response:
    return _problem(500, "the monitor has failed at this request; its log says how")


def _on_outage(request: Request, error: Exception) -> Response:
    return _problem(503, str(error))
