"""The monitor's HTTP interface: the table of operations as routes, the pages, and what is said to those who are refused."""

import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from clipdrift_contract.access.keys import ForbiddenError, UnauthorizedError
from clipdrift_contract.errors import ClipdriftError, RetryableError
from clipdrift_monitor.api.access import Access, MonitorScope
from clipdrift_monitor.api.approval_forms import ApprovalForms
from clipdrift_monitor.api.exporter import Exporter
from clipdrift_monitor.api.file_routes import FileRoutes
from clipdrift_monitor.api.job_bodies import Hook, JobBody
from clipdrift_monitor.api.jobs import Jobs, hook_of, read_job
from clipdrift_monitor.api.openapi import document
from clipdrift_monitor.api.operations import OPERATIONS, Operation, Parameter
from clipdrift_monitor.api.orders import Orders, read_order
from clipdrift_monitor.api.pages import Pages
from clipdrift_monitor.api.questions import Asked, Questions
from clipdrift_monitor.api.reader import Reader, UnknownIncidentError, UnknownModelError, UnknownSliceError
from clipdrift_monitor.api.retrain_pages import RetrainPages
from clipdrift_monitor.api.retrain_reader import RetrainReader, UnknownApprovalError, UnknownRetrainError
from clipdrift_monitor.engine.commands import CommandError
from clipdrift_monitor.engine.engine import Engine
from clipdrift_monitor.engine.retrains import JobError, NoSuchRetrainError
from clipdrift_monitor.store.store import Store

_COMMAND_SECONDS = 20.0
_MAX_FILE_NAME_BYTES = 255  # file systems refuse to look for longer ones
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
# the one page with forms: they go to this origin alone
_FORM_HEADERS = _PAGE_HEADERS | {
    "content-security-policy": _PAGE_HEADERS["content-security-policy"].replace("form-action 'none'", "form-action 'self'")
}
Endpoint = Callable[[Request], Awaitable[Response]]


class Api:
    """All routes.

    Args:
        engine: Carries out commands.
        reader: Answers questions.
        store: For the audit log and incidents.
        exporter: For Prometheus.
        pages: For people.
        retrains: Answers what is asked of retrains and approvals.
        jobs: Takes what jobs and CIs say.
        access: Who may do what.
        evidence_dir: Where evidence packs lie.
        command_seconds: How long a command may wait for the engine.
        artifacts_dir: Where the files of versions are kept.
    """

    def __init__(
        self,
        engine: Engine,
        reader: Reader,
        store: Store,
        exporter: Exporter,
        pages: Pages,
        retrains: RetrainReader,
        jobs: Jobs,
        access: Access,
        evidence_dir: Path,
        command_seconds: float = _COMMAND_SECONDS,
        artifacts_dir: Path = Path("models"),
    ) -> None:
        self._questions = Questions(reader, store, retrains, evidence_dir)
        self._orders = Orders(engine, reader, retrains, command_seconds)
        self._retrains = retrains
        self._jobs = jobs
        self._files = FileRoutes(store, access, artifacts_dir)
        self._exporter = exporter
        self._pages = pages
        self._access = access
        self._retrain_pages = RetrainPages(pages, reader, retrains)
        self._forms = ApprovalForms(self._orders, retrains, self._retrain_pages, access)
        self._evidence_dir = evidence_dir

    def app(self) -> Starlette:
        """The ASGI application."""
        openapi = msgspec.json.encode(document())
        return Starlette(
            routes=[
                Route("/", self._page(lambda request: self._pages.index())),
                Route("/models/{model}", self._page(lambda request: self._pages.model(request.path_params["model"]))),
                Route(
                    "/models/{model}/slices/{slice:path}",
                    self._page(lambda request: self._pages.slice(request.path_params["model"], request.path_params["slice"])),
                ),
                Route("/incidents", self._page(lambda request: self._pages.incidents())),
                Route(
                    "/incidents/{incident_id}",
                    self._page(lambda request: self._pages.incident(request.path_params["incident_id"])),
                ),
                Route(
                    "/models/{model}/retrains",
                    self._page(lambda request: self._retrain_pages.retrains(request.path_params["model"])),
                ),
                Route(
                    "/models/{model}/retrains/{retrain}",
                    self._page(
                        lambda request: self._retrain_pages.retrain(
                            request.path_params["model"], request.path_params["retrain"]
                        )
                    ),
                ),
                Route(
                    "/models/{model}/rollouts/{rollout}",
                    self._page(
                        lambda request: self._retrain_pages.rollout(
                            request.path_params["model"], request.path_params["rollout"]
                        )
                    ),
                ),
                Route("/approvals", self._page(lambda request: self._retrain_pages.approvals())),
                Route("/approvals/{approval_id}", self._asked_by("read", self._approval)),
                Route("/approvals/{approval_id}", self._answer, methods=["POST"]),
                Route("/evidence/{name}", self._asked_by("read", self._evidence)),
                Route("/metrics", self._asked_by(None, self._metrics)),
                Route("/api/v1/openapi.json", self._asked_by("read", lambda request: _encoded(openapi))),
                *self._files.routes(),
                *(Route(one.path, self._endpoint(one), methods=[one.method]) for one in OPERATIONS),
            ],
            exception_handlers={
                HTTPException: _on_http_error,
                UnknownModelError: _on_unknown,
                UnknownIncidentError: _on_unknown,
                UnknownSliceError: _on_unknown,
                UnknownApprovalError: _on_unknown,
                UnknownRetrainError: _on_unknown,
                NoSuchRetrainError: _on_unknown,
                JobError: _on_refusal,
                UnauthorizedError: _on_stranger,
                ForbiddenError: _on_forbidden,
                CommandError: _on_refusal,
                RetryableError: _on_outage,
                Exception: _on_fault,
            },
        )

    def _endpoint(self, one: Operation) -> Endpoint:
        if one.body is None:
            ask = getattr(self._questions, one.name)
            return self._asked_by(one.scope, lambda request: _json(ask(_asked(request, one.parameters)), one.status))
        kind = one.body
        if issubclass(kind, Hook):
            return self._hook(one)
        if issubclass(kind, JobBody):
            return self._told_by_job(one, kind)
        obey = getattr(self._orders, one.name)

        async def order(request: Request) -> Response:
            model = await run_in_threadpool(self._model_of, request.path_params)
            holder = self._access.check(request.headers, one.scope or "operate", model)
            asked = {**_asked(request, one.parameters), "holder": holder}
            return _json(await obey(asked, await read_order(request, kind, holder)), one.status)

        return order

    def _told_by_job(self, one: Operation, kind: type[JobBody]) -> Endpoint:
        obey = getattr(self._jobs, one.name)

        async def tell(request: Request) -> Response:
            model = await run_in_threadpool(self._model_of, request.path_params)
            self._access.check(request.headers, one.scope or "report", model)
            return _json(await obey(_asked(request, one.parameters), await read_job(request, kind)), one.status)

        return tell

    def _hook(self, one: Operation) -> Endpoint:
        async def hook(request: Request) -> Response:
            _asked(request, one.parameters)
            return _json(await self._jobs.hook(request, hook_of(one.path)), one.status)

        return hook

    def _model_of(self, named: Mapping[str, str]) -> str | None:
        """Which model a request is about; None: none in particular, or something that is not known."""
        try:
            if "incident_id" in named:
                return self._questions.incident(named).model
            if "approval_id" in named:
                return self._retrains.approval(named["approval_id"]).model
            if "key" in named:
                return self._questions.ordered_retrain(named).model
        except (UnknownIncidentError, UnknownApprovalError, NoSuchRetrainError):
            return None
        return named.get("model")

    def _asked_by(self, scope: MonitorScope | None, answer: Callable[[Request], Response]) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            if scope is not None:
                named = request.path_params
                model = await run_in_threadpool(self._model_of, named) if "key" in named else named.get("model")
                self._access.check(request.headers, scope, model)
            return await run_in_threadpool(answer, request)

        return endpoint

    def _page(self, render: Callable[[Request], str]) -> Endpoint:
        return self._asked_by("read", lambda request: HTMLResponse(render(request), headers=_PAGE_HEADERS))

    def _approval(self, request: Request) -> Response:
        told = self._retrains.told(self._retrains.approval(request.path_params["approval_id"]))
        return HTMLResponse(self._retrain_pages.approval(told), headers=_FORM_HEADERS)

    async def _answer(self, request: Request) -> Response:
        return await self._forms.answer(request, _FORM_HEADERS)

    def _evidence(self, request: Request) -> Response:
        name = Path(request.path_params["name"]).name
        path = self._evidence_dir / name
        if path.suffix != ".html" or len(name.encode()) > _MAX_FILE_NAME_BYTES or not path.exists():
            raise HTTPException(404, "there is no such evidence; it may still be in the making")
        # its scripts draw charts; the sandbox gives them an origin of their own, so that they can ask nothing of this one
        headers = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox allow-scripts"}
        return FileResponse(path, media_type="text/html", headers=headers)

    def _metrics(self, request: Request) -> Response:
        return Response(self._exporter.exposition(), media_type=CONTENT_TYPE_LATEST)


def _asked(request: Request, parameters: tuple[Parameter, ...]) -> Asked:
    """What was asked with, checked.

    Raises:
        HTTPException: 400, naming what is wrong and what is allowed.
    """
    given = dict(request.query_params)
    known = {one.name: one for one in parameters}
    unknown = sorted(set(given) - set(known))
    if unknown:
        allowed = ", ".join(known) or "nothing"
        raise HTTPException(400, f"{unknown[0][:50]!r} cannot be asked with here; allowed: {allowed}")
    values = {name: _value(one, given[name]) if name in given else one.default for name, one in known.items()}
    return {**values, **request.path_params, "path": request.url.path, "given": given}


def _value(one: Parameter, text: str) -> int | str:
    if not one.is_number:
        if one.choices and text not in one.choices:
            raise HTTPException(400, f"{one.name} must be one of {', '.join(one.choices)}, got {text[:50]!r}")
        return text
    assert one.at_most is not None
    if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
        raise HTTPException(400, f"{one.name} must be a whole number, got {text[:50]!r}")
    value = int(text)
    if not 0 <= value <= one.at_most:
        raise HTTPException(400, f"{one.name} must be in 0..{one.at_most}, got {value}")
    return value


def _json(value: Any, status: int = 200, headers: Mapping[str, str] = _SECURITY_HEADERS) -> Response:
    return _encoded(msgspec.json.encode(value), status, headers)


def _encoded(body: bytes, status: int = 200, headers: Mapping[str, str] = _SECURITY_HEADERS) -> Response:
    return Response(body, status, headers, "application/json")


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
        return _problem(404, f"there is nothing at {request.url.path[:200]}; begin at / or /api/v1/openapi.json")
    return _problem(error.status_code, error.detail)


def _on_unknown(request: Request, error: Exception) -> Response:
    return _problem(404, str(error))


def _on_stranger(request: Request, error: Exception) -> Response:
    # a browser then asks for a key and sends it as a password
    return _problem(
        401, str(error), {"www-authenticate": 'Basic realm="Clipdrift: any name, a key as password", charset="UTF-8"'}
    )


def _on_forbidden(request: Request, error: Exception) -> Response:
    return _problem(403, str(error))


def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, ClipdriftError)
    return _problem(409, str(error))


def _on_fault(request: Request, error: Exception) -> Response:
    return _problem(500, "the monitor has failed at this request; its log says how")


def _on_outage(request: Request, error: Exception) -> Response:
    return _problem(503, str(error))
