"""The data listener: the Open Inference Protocol v2, and feedback."""

import re
from collections.abc import Callable
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

import orjson

from clipdrift_contract import metrics as names
from clipdrift_contract.access.keys import AccessScope
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.access.authorise import Authorise
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.asked import Answer, Asked
from clipdrift_serving.dataplane.description import found, model_config, model_metadata, server_metadata, statistics
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.model import LoadedModel
from clipdrift_serving.dataplane.plane import DataPlane
from clipdrift_serving.operations.logs import AccessLog
from clipdrift_serving.rest.codec import InferRequest, decode_infer, encode_answer
from clipdrift_serving.rest.errors import STATUS_OF
from clipdrift_serving.rest.exemplars import Exemplars
from clipdrift_serving.rest.http import Reply, Request, Response, failed, plain_body, refused, wrong_method
from clipdrift_serving.rest.labels import LabelRoutes
from clipdrift_serving.rest.openapi import document_bytes

HEALTH = frozenset({b"/v2/health/live", b"/v2/health/ready"})
_ROUTE = re.compile(r"/v2/models/(?P<model>[A-Za-z0-9_.-]{1,64})(?:/versions/(?P<version>[A-Za-z0-9_.-]{1,64}))?(?P<rest>/.*)?")
_PATHS = (
    "there are /v2, /v2/health/{live,ready}, /v2/models/stats, /v2/openapi.json, /v1/ingest, "
    "/v2/models/{name}[/versions/{version}] with /ready, /config, /stats, /infer, and without a version /feedback and /labels"
)
_ALWAYS_OPEN = frozenset(path.decode() for path in HEALTH)
_MODEL_GETS = frozenset({"", "/ready", "/config", "/stats"})
_MODEL_POSTS = frozenset({"/infer", "/feedback", "/labels"})
_BINARY = (b"content-type", b"application/octet-stream")


class _Route(NamedTuple):
    model: str
    version: str | None
    rest: str


class DataApp:
    """Answers what comes in on the data listener; an `App` of rest.http.

    Args:
        log: Told of each inference request that was answered.
        authorise: Raises RequestError unless the headers may do what the scope names, to this model; None: everything is open.
    """

    def __init__(
        self,
        config: ServingConfig,
        plane: DataPlane,
        metrics: MetricSet,
        authorise: Authorise | None = None,
        log: AccessLog | None = None,
    ) -> None:
        self._log = log
        self._config = config
        self._authorise = authorise
        self._plane = plane
        self._requests = metrics.counter(names.SERVING_REQUESTS)
        self._latency = metrics.histogram(names.SERVING_LATENCY)
        self.labels = LabelRoutes(config, plane)
        self._counted: dict[tuple[str, str], Callable[[], None]] = {}
        self._observed: dict[str, Callable[..., None]] = {}
        are_ids_kept = config.request_ids.max_requests > 0
        buckets = names.SERVING_LATENCY.buckets
        self._exemplars = Exemplars(buckets, are_ids_kept=are_ids_kept) if config.has_exemplars else None

    def __call__(self, request: Request, reply: Reply) -> None:
        try:
            if self._authorise is not None and request.path not in _ALWAYS_OPEN:
                self._check_key(request)
            route = _route(request.path) if request.path != "/v2/models/stats" else None  # Triton's; no model has this name
            if route is not None and route.rest == "/infer" and request.method == "POST":
                self._infer(route, request, reply)
            elif route is not None:
                reply(self._model(route, request))
            else:
                reply(self._server(request))
        except Exception as error:  # noqa: BLE001  the boundary: it is answered, and logged where it is ours
            reply(failed(error))

    def _check_key(self, request: Request) -> None:
        assert self._authorise is not None
        route = _route(request.path)
        rest = "" if route is None else route.rest
        scope: AccessScope = "read"
        if rest == "/infer":
            scope = "infer"
        elif rest in ("/feedback", "/labels") or request.path == "/v1/ingest":
            scope = "feedback"
        self._authorise(request.headers, scope, None if route is None else route.model)

    def count(self, model: str, code: str, request: Request, request_id: str = "") -> None:
        """Count one inference request that was answered now; `request_id` is the caller's own."""
        counted = self._counted.get((model, code))
        if counted is None:
            counted = self._counted[(model, code)] = self._requests.labels(model, code).inc
        counted()
        observed = self._observed.get(model)
        if observed is None:
            observed = self._observed[model] = self._latency.labels(model).observe
        now = perf_counter()
        seconds = now - request.received_at
        exemplar = None
        if self._exemplars is not None:
            exemplar = self._exemplars.of(model, seconds, now, request_id, request.headers.get(b"traceparent", b""))
        observed(seconds, exemplar)

    def tell(self, request: Request, status: int, model: str, answer: Answer | None = None, request_id: str = "") -> None:
        """Tell the access log, where there is one."""
        if self._log is not None:
            self._log.ended(
                status,
                perf_counter() - request.received_at,
                model=model,
                version=answer.version if answer else "",
                rows=len(answer.receipts) if answer else 0,
                request_id=request_id,
                traceparent=request.headers.get(b"traceparent", b"").decode("latin-1"),
            )

    def _infer(self, route: _Route, request: Request, reply: Reply) -> None:
        try:
            self._plane.repository.get(route.model)
            body = request.body
            if b"content-encoding" in request.headers:
                body = plain_body(request, self._config.max_body_bytes)
            length = request.headers.get(b"inference-header-content-length")
            asked, tensors = decode_infer(body, None if length is None else length.decode("latin-1"))
        except RequestError as error:
            self._refuse(route.model, request, reply, error)
            return
        exchange = _Inference(self, route.model, request, asked, reply)
        key = asked.parameters.get("key", "")
        self._plane.submit(
            Asked(
                route.model,
                tensors,
                exchange.done,
                version=route.version,
                parameters=asked.parameters,
                wanted_outputs=[one.name for one in asked.outputs],
                request_id=asked.id,
                key=key if isinstance(key, str) else str(key),
                received_at=request.received_at,
                num_bytes=len(request.body),
            )
        )

    def _refuse(self, model: str, request: Request, reply: Reply, error: RequestError) -> None:
        # a label must not grow with what clients make up
        self.count("(unknown)" if error.fault == "unknown_model" else model, str(STATUS_OF[error.fault]), request)
        reply(refused(error))
        self.tell(request, STATUS_OF[error.fault], model)

    def _model(self, route: _Route, request: Request) -> Response:
        if route.rest in _MODEL_POSTS and not (route.version and route.rest != "/infer"):
            if request.method != "POST":
                raise wrong_method(request, "POST")
            answer = self.labels.feedback if route.rest == "/feedback" else self.labels.upload
            return answer(route.model, request)
        if route.rest not in _MODEL_GETS:
            raise RequestError("not_found", f"there is nothing at {request.path[:200]}; {_PATHS}")
        if request.method not in ("GET", "HEAD"):
            raise wrong_method(request, "GET, HEAD")
        return Response(200, orjson.dumps(self._told(route.model, route.version or "", route.rest)))

    def _told(self, name: str, version: str, what: str) -> dict[str, Any]:
        plane, repository = self._plane, self._plane.repository
        if what == "/config":
            return model_config(repository, name, version, max_rows=self._config.max_rows)
        if what == "/stats":
            return statistics(repository, plane.usage, name, version)
        serving, model = found(repository, name, version)
        if what == "/ready":
            return {"name": name, "ready": True}
        return {
            **model_metadata(repository, name, version),
            "parameters": {"generation": serving.generation, **_classes(model)},
        }

    def _server(self, request: Request) -> Response:
        path = request.path
        if path == "/v1/ingest":
            if request.method != "POST":
                raise wrong_method(request, "POST")
            return self.labels.ingest(request)
        told = _TOLD.get(path)
        if told is None:
            raise RequestError("not_found", f"there is nothing at {path[:200]}; {_PATHS}")
        if request.method not in ("GET", "HEAD"):
            raise wrong_method(request, "GET, HEAD")
        return told(self._plane)


class _Inference:
    """An inference on its way: turns the plane's answer into bytes."""

    __slots__ = ("app", "asked", "model", "reply", "request")

    def __init__(self, app: DataApp, model: str, request: Request, asked: InferRequest, reply: Reply) -> None:
        self.app = app
        self.model = model
        self.request = request
        self.asked = asked
        self.reply = reply

    def done(self, answer: Answer | RequestError) -> None:
        if isinstance(answer, RequestError):
            self.app._refuse(self.model, self.request, self.reply, answer)
            return
        try:
            encoded, json_bytes = encode_answer(self.asked, answer)
        except Exception as error:  # noqa: BLE001  one answer that cannot be written must not take the others of its turn along
            self.app.count(self.model, "500", self.request, self.asked.id)
            self.reply(failed(error))
            return
        if json_bytes is None:
            self.reply(Response(200, encoded))
        else:
            length = (b"inference-header-content-length", b"%d" % json_bytes)
            self.reply(Response(200, encoded, (_BINARY, length)))
        self.app.count(self.model, "ok", self.request, self.asked.id)
        self.app.tell(self.request, 200, self.model, answer, self.asked.id)


def _ready(plane: DataPlane) -> Response:
    is_ready = plane.repository.is_ready()
    return Response(200 if is_ready else 503, orjson.dumps({"ready": is_ready}))


def _all_statistics(plane: DataPlane) -> Response:
    return Response(200, orjson.dumps(statistics(plane.repository, plane.usage)))


def _about(plane: DataPlane) -> Response:
    return Response(200, orjson.dumps(server_metadata("binary_tensor_data", "clipdrift_feedback")))


_TOLD: dict[str, Callable[[DataPlane], Response]] = {
    "/v2": _about,
    "/v2/": _about,
    "/v2/health/live": lambda plane: Response(200, b'{"live":true}'),
    "/v2/health/ready": _ready,
    "/v2/models/stats": _all_statistics,
    "/v2/openapi.json": lambda plane: Response(200, document_bytes()),
}


@lru_cache(maxsize=1024)
def _route(path: str) -> _Route | None:
    match = _ROUTE.fullmatch(path)
    return None if match is None else _Route(match["model"], match["version"], match["rest"] or "")


def _classes(model: LoadedModel) -> dict[str, Any]:
    if model.profile is None:
        return {}
    return {"classes": list(model.profile.classes), "slices": list(model.profile.slice_names)}
